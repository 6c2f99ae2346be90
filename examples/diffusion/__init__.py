"""Attribution in a diffusion model: which picture taught it what it draws?"""

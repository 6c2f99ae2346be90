"""Which training sentences does a language model know a fact from?"""

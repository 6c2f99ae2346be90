"""Numbers to SVG: pure functions that return escaped markup, coloured by the classes of the page's style alone."""

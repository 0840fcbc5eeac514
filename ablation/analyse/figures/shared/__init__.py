"""What the figures share: the base class, the style, and which arms they plot."""

"""What a study says: comparisons of arms, the headline and what limits them."""

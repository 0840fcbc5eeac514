"""Intervals, paired tests, equivalence, power: plain numbers in and out."""

"""Confidence losses: one file each, unreduced, all behind the contract of base.py."""

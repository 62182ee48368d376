"""Alignments by other programs, one module each, and what speaks for or against them."""

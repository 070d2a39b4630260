"""Chapter 6, easy-to-hard generalization: supervise on easy problems, solve hard ones.

Easy problems are levels 1 to 3, hard ones levels 4 and 5.
"""

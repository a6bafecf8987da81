"""Referring data sets in their public formats, matchers of answers, and evaluations."""

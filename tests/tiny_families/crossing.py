"""Families in which text or learned queries attend to states outside the sequence."""

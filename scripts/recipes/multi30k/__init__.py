"""Multi30k, spoken by synthetic voices."""

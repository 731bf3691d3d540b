"""A trained model judged on whole test sets, beside a cascade."""

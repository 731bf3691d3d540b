"""Training and judging unit vocoders."""

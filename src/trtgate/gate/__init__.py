"""From a measurement to judgements and what is stored of it. Knows no pytest."""

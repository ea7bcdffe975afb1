"""The wing that looks at shards; it knows neither who writes them nor who trains on them."""

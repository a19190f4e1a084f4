"""YAML files → a `RuleSet` that is proved by its own examples."""

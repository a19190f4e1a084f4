"""Decides, and knows neither disk nor clock: values, names, conflicts, retention, the plan."""

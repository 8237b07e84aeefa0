"""The kit that analyses are written with, public through the facade. The analyses themselves are plugins."""

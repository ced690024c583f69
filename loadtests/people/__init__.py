"""People at work under Locust, with a provider and a store that misbehave. How to run it: `../README.md`."""

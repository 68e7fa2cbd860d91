"""Bounds between which the results of autoscalers lie: constant fleet, hindsight schedule, lower bound."""

"""What do the dashboards show? Each of their files answers that for one; `python -m deploy.grafana` writes their JSON.

Built with Grafana's Foundation SDK, which knows the format of a dashboard. Knows the names of the service's metrics
and nothing of its code.
"""

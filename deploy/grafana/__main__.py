"""Writes the dashboards where Grafana reads them: `python -m deploy.grafana`, in the project's folder."""

from deploy.grafana.pages import FOLDER, write

if __name__ == "__main__":
    write(FOLDER)

"""WHEN: Prefect flows, MLflow tracking, configuration and the command line."""

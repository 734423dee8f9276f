#!/bin/sh
# MLflow's server on PostgreSQL with accounts and host checks: docs/howto/central_store.md
#   DATABASE    postgresql+psycopg://user:password@host:port, with the databases waterline and waterline_users
#   ARTIFACTS   folder or s3://bucket/prefix for files
#   HOSTS       names and addresses under which the server is reached, with the port: bench.lab.example:5000,10.0.0.5:5000
#   ADDRESS, PORT, WORKERS   where it listens and in how many processes; 0.0.0.0, 5000 and 2
#   MLFLOW_AUTH_ADMIN_PASSWORD, MLFLOW_FLASK_SERVER_SECRET_KEY   of the account admin, and of sessions
set -eu
: "${DATABASE:?}" "${ARTIFACTS:?}" "${HOSTS:?}" "${MLFLOW_AUTH_ADMIN_PASSWORD:?}" "${MLFLOW_FLASK_SERVER_SECRET_KEY:?}"
umask 077
MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
cat > "$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
database_uri = $DATABASE/waterline_users
admin_username = admin
default_permission = READ
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
END
export MLFLOW_AUTH_CONFIG_PATH
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec python -m mlflow server --app-name basic-auth --backend-store-uri "$DATABASE/waterline" \
    --artifacts-destination "$ARTIFACTS" --allowed-hosts "$HOSTS" \
    --host "${ADDRESS:-0.0.0.0}" --port "${PORT:-5000}" --workers "${WORKERS:-2}"

# Runs a command in the workspace.
set -e
. /ws/amodal.bash
exec "$@"

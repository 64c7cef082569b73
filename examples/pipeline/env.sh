# Where everything is. What is already set stays; the rest is for one machine.
export SHOP_HOST="${SHOP_HOST:-127.0.0.1}" SHOP_PORT="${SHOP_PORT:-3306}" SHOP_PASSWORD="${SHOP_PASSWORD:-cdc-secret}"
export TIDB_HOST="${TIDB_HOST:-127.0.0.1}" TIDB_PORT="${TIDB_PORT:-4000}" TIDB_PASSWORD="${TIDB_PASSWORD:-dw-secret}"
export KAFKA_HOST="${KAFKA_HOST:-127.0.0.1}" KAFKA_PORT="${KAFKA_PORT:-9092}"
export SEARCH_HOST="${SEARCH_HOST:-127.0.0.1}" SEARCH_PORT="${SEARCH_PORT:-9200}"
export REDIS_HOST="${REDIS_HOST:-127.0.0.1}" REDIS_PORT="${REDIS_PORT:-6379}"

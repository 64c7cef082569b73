#!/bin/bash
# make.sh NAME DATADIR CLIENT…: fills database `corpus` from NAME.sql with CLIENT (a mysql or mariadb command line,
# whose server logs to DATADIR/bin.*), and writes NAME.binlog, NAME.columns.tsv and NAME.expected.tsv.
set -e; name=$1 data=$2; shift 2
run() { "$@" --default-character-set=utf8mb4 --batch --raw --skip-column-names; }
run "$@" <<<"DROP DATABASE IF EXISTS corpus; CREATE DATABASE corpus CHARACTER SET utf8mb4; FLUSH BINARY LOGS"
file=$(run "$@" <<<"SHOW BINARY LOGS" | tail -1 | cut -f1)
(echo "USE corpus; SET time_zone='+00:00', sql_mode='', group_concat_max_len=1000000;"; cat "$name.sql") | run "$@"
run "$@" <<<"FLUSH BINARY LOGS"
cp "$data/$file" "$name.binlog"; chmod 644 "$name.binlog"
checks="''"
[[ $name == mariadb* ]] && checks="(SELECT COUNT(*) FROM information_schema.check_constraints k WHERE k.constraint_schema=c.table_schema AND k.table_name=c.table_name AND k.constraint_name=c.column_name AND k.check_clause LIKE 'json_valid%')"
run "$@" > "$name.columns.tsv" <<E2
SELECT table_name, column_name, column_type, data_type, IFNULL(character_maximum_length,''), IFNULL(character_set_name,''), IFNULL($checks,0)
FROM information_schema.columns c WHERE table_schema='corpus' ORDER BY table_name, ordinal_position
E2
: > "$name.expected.tsv"
run "$@" <<E2 > /tmp/$$.sql
SET SESSION group_concat_max_len=1000000;
SELECT CONCAT('SELECT ''', table_name, ''', ', GROUP_CONCAT('IFNULL(', CASE
  WHEN data_type IN ('char','varchar','tinytext','text','mediumtext','longtext') THEN CONCAT('CONCAT(HEX(CONVERT(\`',column_name,'\` USING utf8mb4)),''/'',HEX(\`',column_name,'\`))')
  WHEN data_type IN ('enum','set','bit') THEN CONCAT('CAST(\`',column_name,'\` AS UNSIGNED)')
  WHEN data_type = 'float' THEN CONCAT('CAST(\`',column_name,'\` AS DOUBLE)')
  WHEN data_type = 'json' THEN CONCAT('IF(LENGTH(CAST(\`',column_name,'\` AS CHAR))>2000, CONCAT(''crc '',CRC32(CAST(\`',column_name,'\` AS CHAR CHARACTER SET utf8mb4))), HEX(CAST(\`',column_name,'\` AS CHAR CHARACTER SET utf8mb4)))')
  WHEN data_type IN ('uuid','inet4','inet6') THEN CONCAT('HEX(CAST(\`',column_name,'\` AS CHAR CHARACTER SET utf8mb4))')
  WHEN data_type IN ('binary','varbinary','tinyblob','blob','mediumblob','longblob','vector','geometry','point') THEN CONCAT('HEX(\`',column_name,'\`)')
  ELSE CONCAT('\`',column_name,'\`') END, ', ''NULL'')' ORDER BY ordinal_position SEPARATOR ', '), ' FROM corpus.\`', table_name, '\` ORDER BY 2;')
FROM information_schema.columns WHERE table_schema='corpus' GROUP BY table_name ORDER BY table_name;
E2
(echo "SET time_zone='+00:00';"; cat /tmp/$$.sql) | run "$@" >> "$name.expected.tsv"; rm /tmp/$$.sql

"""Asks by PyMySQL or mysqlclient (the first argument), and prints what comes: names, types, values, errors."""

import sys

module, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
driver = __import__(module)
login = {"host": "127.0.0.1", "port": port, "user": "root", "charset": "utf8mb4"}
connection = driver.connect(database="ods", **login)
for sql in open(path, encoding="utf-8").read().splitlines():
    print(sql)
    cursor = connection.cursor()
    try:
        cursor.execute(sql)
    except driver.MySQLError as error:
        print("error", error.args[0])
        continue
    if cursor.description:
        print([(column[0], column[1]) for column in cursor.description])
    for row in cursor.fetchall():
        print(row)
cursor = connection.cursor()
cursor.execute("SELECT id FROM orders WHERE customer = %s AND price = %s", ("Ann", "12.50"))
print(cursor.fetchall(), cursor.rowcount)
connection.ping()
connection.commit()
connection.rollback()
connection.autocommit(True)
connection.select_db("ods")
streaming = driver.connect(database="ods", cursorclass=driver.cursors.SSCursor, **login)
cursor = streaming.cursor()
cursor.execute("SELECT a.id FROM orders a, orders b, orders c ORDER BY a.id")
print(cursor.fetchone(), len(cursor.fetchall()))

"""What SQLAlchemy reads of the tables: this is how Superset knows them."""

import sys

import sqlalchemy as sa

engine = sa.create_engine(f"mysql+pymysql://root@127.0.0.1:{sys.argv[1]}/ods?charset=utf8mb4")
inspector = sa.inspect(engine)
print(inspector.default_schema_name, "ods" in inspector.get_schema_names())
print(inspector.has_table("orders"), inspector.has_table("nothing"), inspector.get_view_names())
for table in sorted(inspector.get_table_names()):
    print(table)
    for column in inspector.get_columns(table):
        print("  ", column["name"], repr(column["type"]), column["nullable"], column["default"], column.get("autoincrement"))
    print("  ", inspector.get_pk_constraint(table))
    print("  ", inspector.get_foreign_keys(table), inspector.get_check_constraints(table))
    for key in sorted(inspector.get_indexes(table), key=lambda it: it["name"]):
        print("  ", key["name"], key["column_names"], key["unique"])
    for key in inspector.get_unique_constraints(table):
        print("  ", key["name"], key["column_names"])
metadata = sa.MetaData()
metadata.reflect(engine)
orders, customers = metadata.tables["orders"], metadata.tables["customers"]
with engine.connect() as connection:
    joined = orders.outerjoin(customers, orders.c.customer == customers.c.name)
    query = sa.select(orders.c.id, customers.c.city, sa.func.count().label("n")).select_from(joined)
    query = query.where(orders.c.quantity > 0).group_by(orders.c.id, customers.c.city).order_by(orders.c.id).limit(2)
    print(connection.execute(query).fetchall())
    print(connection.execute(sa.text("SELECT * FROM orders WHERE id = :id"), {"id": 2}).fetchall())
    print(connection.get_isolation_level())

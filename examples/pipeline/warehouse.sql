-- On TiDB: the user that Tidemill writes as.
CREATE USER IF NOT EXISTS dw@'%' IDENTIFIED BY 'dw-secret';
GRANT CREATE, DROP, ALTER, INDEX, INSERT, UPDATE, DELETE, SELECT ON *.* TO dw@'%';

STOP REPLICA;
SET PERSIST super_read_only = OFF;
SET PERSIST read_only = OFF;

CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = 3306, SOURCE_USER = 'replica',
  SOURCE_PASSWORD = 'replica-secret', GET_SOURCE_PUBLIC_KEY = 1, SOURCE_AUTO_POSITION = 1;
START REPLICA;
-- Kept over a restart: a replica that comes back writable would be taken for a writer.
SET PERSIST super_read_only = ON;

-- The client of MySQL 9.7 and what people type into it.
-- Above each statement stands the shape of the answer, as a MySQL 9.7 gave it.

-- rows 1: @@version_comment
select @@version_comment limit 1;
-- rows 1: USER()
select USER();
-- rows some: Database
show databases;
-- rows 2: Tables_in_ods
show tables;
-- rows 1: DATABASE()
SELECT DATABASE();
-- rows 1: DATABASE(), USER()
select DATABASE(), USER() limit 1;
-- rows 0: Level, Code, Message
SHOW WARNINGS;
-- rows 1: Variable_name, Value
show session status like 'ssl_version';
-- rows some: Variable_name, Value
show variables like 'character\_set\_%';
-- rows 13: Field, Type, Null, Key, Default, Extra
describe orders;
-- rows 4: Table, Non_unique, Key_name, Seq_in_index, Column_name, Collation, Cardinality, Sub_part, Packed, Null, Index_type, Comment, Index_comment, Visible, Expression
show index from orders;
-- rows 2: Name, Engine, Version, Row_format, Rows, Avg_row_length, Data_length, Max_data_length, Index_length, Data_free, Auto_increment, Create_time, Update_time, Check_time, Collation, Checksum, Create_options, Comment
show table status;
-- rows some: Engine, Support, Comment, Transactions, XA, Savepoints
show engines;
-- rows 1: Collation, Charset, Id, Default, Compiled, Sortlen, Pad_attribute
show collation where charset = 'utf8mb4' and `default` = 'Yes';
-- rows some: Charset, Description, Default collation, Maxlen
show character set like 'utf8mb4';

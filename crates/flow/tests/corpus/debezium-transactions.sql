-- With `provide.transaction.metadata=true`: where transactions begin and end, how many events each has of each table.
CREATE TABLE corpus.accounts (id INT PRIMARY KEY, balance INT NOT NULL)
CREATE TABLE corpus.moves (n INT PRIMARY KEY, amount INT NOT NULL)
CREATE TABLE corpus.notes (a INT, b VARCHAR(10))
CREATE TABLE corpus.zz_end (id INT PRIMARY KEY)
INSERT INTO corpus.accounts VALUES (1, 100), (2, 100), (3, 100)
INSERT INTO corpus.zz_end VALUES (1)
-- stream --
INSERT INTO corpus.moves VALUES (1, 10)
BEGIN
UPDATE corpus.accounts SET balance = balance - 10 WHERE id = 1
UPDATE corpus.accounts SET balance = balance + 10 WHERE id = 2
INSERT INTO corpus.moves VALUES (2, 10)
COMMIT
UPDATE corpus.accounts SET balance = balance + 1
UPDATE corpus.accounts SET id = 30 WHERE id = 3
BEGIN
INSERT INTO corpus.notes VALUES (1, 'x')
UPDATE corpus.accounts SET id = 31, balance = 7 WHERE id = 30
DELETE FROM corpus.accounts WHERE id = 1
INSERT INTO corpus.notes VALUES (2, 'y')
COMMIT
BEGIN
INSERT INTO corpus.moves VALUES (3, 10)
ROLLBACK
ALTER TABLE corpus.moves ADD COLUMN note VARCHAR(10)
INSERT INTO corpus.moves VALUES (4, 1, 'late')
TRUNCATE TABLE corpus.notes
INSERT INTO corpus.notes VALUES (3, 'z')
INSERT INTO corpus.zz_end VALUES (2)

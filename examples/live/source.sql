-- The user that Tidemill reads as, and a shop with the orders of the last hour.
CREATE USER IF NOT EXISTS cdc@'%' IDENTIFIED BY 'cdc-secret';
GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO cdc@'%';
CREATE DATABASE shop;
USE shop;
CREATE TABLE shop.orders (
  id INT PRIMARY KEY AUTO_INCREMENT,
  customer VARCHAR(60) NOT NULL,
  product VARCHAR(40) NOT NULL,
  amount DECIMAL(12,2) NOT NULL,
  status ENUM('new','paid','sent') NOT NULL DEFAULT 'new',
  placed_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
);
INSERT INTO shop.orders (customer, product, amount, status, placed_at)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000),
-- Numbers from 0 to 1 that are the same each time.
dice AS (SELECT i, CRC32(SHA2(i, 256)) / 4294967296 AS a, CRC32(SHA2(-i, 256)) / 4294967296 AS b, CRC32(SHA2(i + .5, 256)) / 4294967296 AS c FROM n)
SELECT ELT(1 + FLOOR(a * 12), 'Ann', 'Bo', 'Chen', 'Dara', 'Elif', 'Femi', 'Greta', 'Hugo', 'Ines', 'Jun', 'Kofi', 'Lea'),
       ELT(1 + FLOOR(b * c * 7), 'Green tea', 'Oolong', 'Black tea', 'Teapot', 'Matcha', 'Tea bowl', 'Whisk'),
       ROUND(4 + 50 * a * b * (1.4 + SIN(i / 90)), 2),
       IF(i > 992, 'new', IF(i > 980, 'paid', 'sent')),
       CURRENT_TIMESTAMP(3) - INTERVAL (1000 - i) * 3.6 SECOND
FROM dice;

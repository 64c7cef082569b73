-- On the source: the user that Tidemill reads as, and a shop to read.
CREATE USER IF NOT EXISTS cdc@'%' IDENTIFIED BY 'cdc-secret';
GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO cdc@'%';
CREATE DATABASE shop;
CREATE TABLE shop.customers (
  id INT UNSIGNED PRIMARY KEY AUTO_INCREMENT,
  name VARCHAR(60) NOT NULL,
  email VARCHAR(80),
  birthday DATE
);
CREATE TABLE shop.orders (
  id BIGINT PRIMARY KEY AUTO_INCREMENT,
  customer_id INT UNSIGNED NOT NULL,
  status ENUM('new','paid','sent') NOT NULL DEFAULT 'new',
  total DECIMAL(12,2) NOT NULL,
  placed_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  note VARCHAR(200)
);
CREATE TABLE shop.order_lines (
  order_id BIGINT NOT NULL,
  line INT NOT NULL,
  product VARCHAR(40) NOT NULL,
  quantity INT NOT NULL,
  price DECIMAL(10,2) NOT NULL,
  PRIMARY KEY (order_id, line)
);
CREATE TABLE shop.stock (
  product VARCHAR(40) PRIMARY KEY,
  quantity INT NOT NULL
);
INSERT INTO shop.customers (id, name, email, birthday) VALUES (1, 'Ann', 'ann@example.com', '1990-02-28'), (2, 'Bo', NULL, NULL);
INSERT INTO shop.orders (id, customer_id, total, note) VALUES (1, 1, 12.50, 'please ring twice');
INSERT INTO shop.order_lines VALUES (1, 1, 'green tea', 1, 12.50);
INSERT INTO shop.stock VALUES ('green tea', 99), ('rice', 40);

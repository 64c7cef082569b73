-- On the source: the user that Tidemill reads as, and a shop to read.
CREATE USER IF NOT EXISTS cdc@'%' IDENTIFIED BY 'cdc-secret';
GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO cdc@'%';
CREATE DATABASE shop;
CREATE TABLE shop.orders (
  id INT PRIMARY KEY AUTO_INCREMENT,
  customer VARCHAR(60) NOT NULL,
  amount DECIMAL(12,2) NOT NULL,
  status ENUM('new','paid','sent') NOT NULL DEFAULT 'new',
  placed_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
);
CREATE TABLE shop.lines (
  order_id INT NOT NULL,
  line INT NOT NULL,
  product VARCHAR(40) NOT NULL,
  quantity INT NOT NULL,
  PRIMARY KEY (order_id, line)
);

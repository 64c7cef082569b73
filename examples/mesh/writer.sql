CREATE DATABASE shop;
CREATE TABLE shop.orders (
  id INT PRIMARY KEY AUTO_INCREMENT,
  product VARCHAR(40) NOT NULL,
  quantity INT NOT NULL
);
CREATE USER shop@'%' IDENTIFIED BY 'shop-secret';
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO shop@'%';
-- It asks for roles and for the lag of replicas, and can read no table.
CREATE USER mesh_monitor@'%' IDENTIFIED BY 'monitor-secret';
GRANT REPLICATION CLIENT ON *.* TO mesh_monitor@'%';
CREATE USER replica@'%' IDENTIFIED BY 'replica-secret';
GRANT REPLICATION SLAVE ON *.* TO replica@'%';

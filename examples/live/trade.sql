-- The shop opens: MySQL itself places orders, and moves others on. To close it: `DROP EVENT shop.orders_come; DROP EVENT shop.orders_go`.
CREATE EVENT shop.orders_come ON SCHEDULE EVERY 1 SECOND DO
  INSERT INTO shop.orders (customer, product, amount)
  SELECT ELT(1 + FLOOR(RAND() * 12), 'Ann', 'Bo', 'Chen', 'Dara', 'Elif', 'Femi', 'Greta', 'Hugo', 'Ines', 'Jun', 'Kofi', 'Lea'),
         ELT(1 + FLOOR(RAND() * RAND() * 7), 'Green tea', 'Oolong', 'Black tea', 'Teapot', 'Matcha', 'Tea bowl', 'Whisk'),
         ROUND(4 + 70 * RAND() * RAND(), 2)
  WHERE RAND() < 0.4;
CREATE EVENT shop.orders_go ON SCHEDULE EVERY 2 SECOND DO
  UPDATE shop.orders SET status = IF(status = 'new', 'paid', 'sent') WHERE status <> 'sent' ORDER BY id LIMIT 1;

create table o (id int primary key, cust int, amount decimal(10,2), day date);
insert into o values (1, 1, 10.50, '2026-01-01'), (2, 1, 20.25, '2026-01-02'), (3, 2, 0.10, '2026-01-01'), (4, 9, 5.00, '2026-01-03'), (5, null, 1.00, null);
create table c (id int primary key, name varchar(20), boss int);
insert into c values (1, 'Ann', null), (2, 'Bob', 1), (3, 'Cid', 1), (4, 'dan', 2);
create table p (name varchar(20) primary key, score decimal(5,1), id int);
insert into p values ('ANN', 1.5, 1), ('BOB', 2.0, 7), ('Eve', 3.5, 8);
select o.id, c.name from o join c on o.cust = c.id order by o.id;
select o.id, c.name from o left join c on o.cust = c.id order by o.id;
select o.id, c.name from o right join c on o.cust = c.id order by c.id, o.id;
select o.id, c.name from o, c where o.cust = c.id order by o.id;
select count(*) as n from o cross join c;
select count(*) as n from o join c;
select a.name, b.name as boss from c a left join c b on a.boss = b.id order by a.id;
select o.id, c.name, p.score from o join c on o.cust = c.id left join p on p.name = c.name order by o.id;
select * from c join p using (id) order by c.id;
select * from c natural join p order by c.id;
select * from c left join p using (id) order by id;
select c.*, p.score from c join p on c.name = p.name order by c.id;
select c.name, p.name as q from c left join p on c.name = p.name and p.score > 1.7 order by c.id;
select o.id from o left join c on o.cust = c.id where c.id is null order by o.id;
select c.name, sum(o.amount) as s, count(o.id) as n from c left join o on o.cust = c.id group by c.id, c.name order by c.id;
select id, name from c where id in (select cust from o) order by id;
select id, name from c where id not in (select cust from o where cust is not null) order by id;
select id, name from c where id not in (select cust from o) order by id;
select id, name from c where exists (select 1 from o where o.cust = c.id) order by id;
select id, name from c where not exists (select 1 from o where o.cust = c.id and o.amount > 1) order by id;
select id, (select sum(amount) from o where o.cust = c.id) as s from c order by id;
select id, (select name from c where c.id = o.cust) as n from o order by id;
select id from o where amount = (select max(amount) from o);
select id from o where amount > (select avg(amount) from o) order by id;
select id, (select id from c) as x from o;
select id, (select id, name from c limit 1) as x from o;
select id from o where cust = (select id from c where name = 'nobody');
select q.cust, q.s from (select cust, sum(amount) as s from o group by cust) as q where q.s > 1 order by q.cust;
select q.a, q.b from (select id as a, name as b from c) as q order by q.a;
-- differs
select q.x from (select id, name from c) as q (x, y) order by q.x;
select max(s) as m from (select sum(amount) as s from o group by cust) as q;
select * from (select 1 as a, 'x' as b) as q;
select * from (select 1);
select nope from o;
select o.nope from o;
select z.id from o;
select id from o join c on o.cust = c.id;
select * from nope;
select o.id from o join o on 1 = 1;
select id from o where id = 1 or id = 3 order by id desc limit 1;
select id from o order by id limit 2 offset 1;
select id from o order by id limit 1, 2;
select id from o order by amount desc, id;
select id as k from o order by k desc limit 3;
select id, amount as x from o order by x + 0, id;
select id from o order by day, id;
select id from o order by day desc, id desc;
select id from o order by 1 desc;
select id from o order by 9;
select id + 1 as id from o order by id desc;
select o.id from o join c on o.cust = c.id and c.name like 'a%' order by o.id;
select o.id, c.id as cid from o left join (select id from c where id > 1) as c on c.id = o.cust order by o.id;
select a.id, b.id as bid from c a join c b on a.id < b.id and a.boss <=> b.boss order by a.id, b.id;
select c.id from c where (select count(*) from o where o.cust = c.id) > 1 order by c.id;
select c.id from c where c.id in (select o.cust from o where o.amount > c.id) order by c.id;
select (select max(id) from c) as a, (select min(amount) from o) as b;
select id from o where cust in (select id from c where id > 1) or amount > 10 order by id;
-- refused
select id from o where (cust, amount) in ((1, 10.50), (2, 0.10)) order by id;
-- refused
select id from o where (cust, amount) = (1, 10.50);
-- refused
select id from o where amount > all (select 1 union select 2) order by id;
select id from o where cust = any (select id from c) order by id;
select straight_join o.id from o join c on o.cust = c.id order by o.id;
select o.id from o inner join c on o.cust = c.id where c.name = 'ANN' and o.day >= '2026-01-02';
select o.id, p.name from o join p on o.amount > p.score order by o.id, p.name;
select c.name from c join p on p.name = c.name and p.id = c.id;
select count(*) as n from o a join o b on a.amount = b.amount;
select 1 from dual;
select 1 as x from dual where 1 = 2;
-- refused
select o.id from o full outer join c on o.cust = c.id;
select -id as id from o order by id + 0;
select -id as id from o order by id;
-- differs
select id from c where id in (select cust from o order by id limit 1);
select c.id, count(*) as n, sum(o.amount * c.id) as s from c join o on o.cust = c.id group by c.id having n > 1;
select o.id, o.amount * 2 as amount from o where o.amount > 1 order by amount desc;
create table ja (id int, v int);
insert into ja values (1, 10), (2, 20);
create table jb (id int, w int);
insert into jb values (1, 100), (3, 300);
create table jc (id int, u int);
insert into jc values (1, 5), (3, 7);
select ja.id, jb.id as bid, w, u from ja, jb join jc using (id) order by ja.id, jb.id;
select * from ja, jb join jc using (id) order by v, w;
select * from ja, jb natural join jc order by v, w;
select * from ja join jb using (id), jc order by v, w, u;
select v, w, u from ja, jb left join jc using (id) order by v, w;
select ja.id from ja join jb on ja.v < jb.w join jc using (id);
select ja.id from ja join jb on ja.v < jb.w natural join jc;
select ja.id from ja, jb join jc on ja.id = jc.id;
select ja.id from ja, jb join jc on v = u;
select ja.id from ja, jb join jc using (v);
select ja.id from ja, jb join jc on jb.id = jc.id where ja.id = jb.id;
select ja.id from ja, jb join jc on jb.id = jc.id and exists (select 1 from ja x where x.id = ja.id);
select v from ja where exists (select 1 from jb join jc on jb.id = jc.id and jc.id = ja.id);
select id from ja join jb using (id) join jc using (id);
select 4 in (select 3) as a, 1 + 2 in (select 3) as b, -3 in (select -3) as c, (1 = 3) in (select 0) as d;
-- refused
select 1 = 3 in (select 3) as a;
-- refused
select 1 = 3 = any (select 3) as a;
-- refused
select 'a' || 'b' in (select 'ab') as a;
-- refused
select 1 between 0 and 3 in (select 3) as a;
-- refused
select 1 < 2 in (select 1) as a;
-- refused
select 5 & 3 in (select 1) as a;
select upper('a') in (select 'A') as a, (2) = any (select 2) as b, cast('3' as signed) * 2 in (select 6) as c, case 1 when 1 then 2 end in (select 2) as d;
select v from ja where v - 10 in (select 0) or id % 2 in (select 1) order by v;

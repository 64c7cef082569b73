select 1

SELECT 1, 2, 3

select 'a'

select "a", 'b', N'c', n'd', x'1f', X'1F', 0x1f, b'01', B'01', 0b01

select _utf8mb4'a', _latin1 'b', _binary x'00', _utf8mb4 0x61

select _utf8mb4'a'

select _latin1 'a', _latin1 'b'

select -1, +1, - 1, -1.5, 1e10, 1.5e-3, .5, 5., -.5e3

select - - 1

select 1 - 1, 1 - -1, a - 1, a -1, (a) - 1, -a, - (1), -?

select 1 + 2 * 3 / 4 % 5 div 6 mod 7

select 18446744073709551615, 99999999999999999999, 1.0, 9223372036854775808, 2147483648

select null, true, false, unknown

select null is null, 1 is not null, 1 is true, 1 is not false, 1 is unknown

select not 1, ! 1, ~ 1, 1 && 2, 1 || 2, 1 xor 2, 1 and 2, 1 or 2

select 1 = 2, 1 <=> 2, 1 <> 2, 1 != 2, 1 < 2, 1 <= 2, 1 > 2, 1 >= 2, 1 << 2, 1 >> 2, 1 & 2, 1 | 2, 1 ^ 2

select a = 1, a <=> b, a <> b, a != b, a < b, a <= b, a > b, a >= b, a << b, a >> b, a & b, a | b, a ^ b from t

select 'a' 'b' 'c'

select 'it''s', 'it\'s', "say ""so""", 'a\\', '\n\t\0'

select 'a' collate utf8mb4_bin, _utf8mb4'b' collate utf8mb4_general_ci

select * from t

SELECT * FROM T

select t.* from t

select a, b, c from t

select `a`, `b c`, `d``e` from `t`

select a.b, a.b.c, `a`.`b`, a . b from a

select a as x, b as `y`, c as 'z', d "w", e f from t as u

select 列, 表.`名` from 表

select `列` as "名字" from `数据`.`表`

select distinct a from t

--: no mysql: it refuses the statement
select all a, distinctrow from t

select distinctrow a from t

select high_priority straight_join sql_small_result sql_big_result sql_buffer_result sql_no_cache a from t

select sql_calc_found_rows * from t limit 10

select a from t where a = 1

select a from t where a = -1 and b > -2.5 or c < +3

select a from t where a = 'x' and b = "y" and c = ?

select a from t where a between 1 and 10

select a from t where a not between ? and ?

select a from t where a like 'x%' escape '!' or a not like '_y' or a rlike 'z' or a regexp 'w' or a not regexp 'v'

select a from t where a is null or b is not null or c = null or d <=> null

select a from t where a in (1)

select a from t where a in (1, 2)

select a from t where a in (1, 2, 3, 4, 5, 6, 7, 8)

select a from t where a not in ('x', 'y')

select a from t where a in (?, ?, ?)

select a from t where a in (?)

select a from t where a in (-1, -2)

select a from t where a in (-1)

select a from t where a in (null, 1)

select a from t where a in (null)

select a from t where a in (1, b, 2, 3)

select a from t where a in (b, 1, 2)

select a from t where a in (1 + 1, 2)

select a from t where a in (now(), 2)

select a from t where a in ('a' 'b', 'c')

select a from t where a in (_utf8mb4'a', _utf8mb4'b')

select a from t where a in (true, false)

select a from t where a in (date '2026-01-01', date '2026-01-02')

select a from t where a in ((1), (2))

select a from t where (a, b) in ((1, 2))

select a from t where (a, b) in ((1, 2), (3, 4))

select a from t where (a, b) in ((1, 2), (3, 4), (5, 6))

select a from t where (a, b) = (1, 2)

select a from t where row(a, b) in (row(1, 2), row(3, 4))

select a from t where a in (select b from u where c in (1, 2))

select a from t where exists (select 1 from u where u.a = t.a)

select a from t where not exists (select * from u)

select a from t where a = any (select b from u) or a > all (select c from v) or a < some (select d from w)

select a from t where a = (select max(b) from u)

select a from t order by a

select a from t order by 1

select a, b from t order by 1, 2

select a, b from t order by 1 desc, b asc, 3

select a, count(*) from t group by a

select a, count(*) from t group by 1

select a, b, count(*) from t group by 1, 2 having count(*) > 1

select a from t group by a with rollup

--: no mysql: it refuses the statement
select a from t group by a desc

select a, sum(b) from t group by rollup (a)

select a from t limit 10

select a from t limit 10, 20

select a from t limit 10 offset 20

select a from t limit ?

select a from t limit ?, ?

select count(*) from t

select count( * ) from t

select count(1), count(a), count(distinct a, b) from t

select COUNT(*), Sum(a), mIn(b), max(c), avg(d) from t

select count from t

select sum(a), now(), sysdate(), curdate(), current_timestamp, current_timestamp(), current_timestamp(6) from t

select group_concat(distinct a order by b desc separator ',') from t

select std(a), stddev(a), stddev_pop(a), stddev_samp(a), var_pop(a), var_samp(a), variance(a), bit_and(a), bit_or(a), bit_xor(a) from t

select json_arrayagg(a), json_objectagg(a, b) from t

select substring(a, 1, 2), substring(a from 1 for 2), substr(a, 1), mid(a, 1, 2) from t

select trim(a), trim(both 'x' from a), trim(leading from a), ltrim(a), rtrim(a) from t

select concat(a, b, 'c', 'd'), concat('a', 'b'), concat('a', b), concat_ws(',', a, 'b', 'c') from t

select if(a, 1, 2), ifnull(a, 0), nullif(a, 1), coalesce(a, b, 1, 2) from t

select f(1, 2, 3)

select f(1), f(?), f()

select f(a, 1, 2), db.f(1)

select abs(-1), round(1.5), round(a, 2), floor(-a), pow(2, 3), mod(5, 3), rand(), pi()

select date_add(a, interval 1 day), date_sub(a, interval -1 hour_minute), a + interval 1 month, adddate(a, 1), subdate(a, interval 2 day) from t

select extract(year from a), year(a), month(a), day(a), hour(a), minute(a), second(a), microsecond(a), week(a), quarter(a) from t

select timestampdiff(second, a, b), timestampadd(day, 1, a), date_format(a, '%Y-%m-%d'), str_to_date('x', '%Y') from t

select date '2026-01-01', time '10:00:00', timestamp '2026-01-01 10:00:00', {d '2026-01-01'}

select cast(a as signed), cast(a as unsigned), cast(a as char(10)), cast(a as decimal(10, 2)), cast(a as json), convert(a, char), convert(a using utf8mb4) from t

select cast(1 as signed), cast('x' as binary(5)), convert('x', decimal(5)), binary 'a'

select position('a' in b), locate('a', b), instr(a, 'b'), left(a, 1), right(a, 2), repeat('x', 3), replace(a, 'b', 'c'), insert('abc', 1, 2, 'x') from t

select char(65, 66), char(65 using utf8mb4), ascii('a'), hex(255), unhex('ff'), ord('x')

select case a when 1 then 'x' when 2 then 'y' else 'z' end from t

select case when a > 1 then 1 when a > 2 then 2 end as b from t

select a -> '$.b', a ->> '$.c' from t

select json_extract(a, '$.b', '$.c'), json_object('a', 1, 'b', 2), json_array(1, 2, 3), json_contains(a, '1') from t

select a member of ('[1, 2]'), 1 member of (b) from t

select json_value(a, '$.b' returning unsigned) from t

select * from json_table('[1]', '$[*]' columns (a int path '$', b for ordinality)) as j

select match (a, b) against ('x y' in boolean mode) from t

select match a against ('x') from t

select user(), current_user, current_user(), session_user(), system_user(), database(), schema(), version(), connection_id()

select @a, @b_c, @`d e`, @'f', @"g", @a.b

select @a := 1, @b := @a + 1

select @a:=@a+1 from t, (select @a:=0) as r

select @@version, @@session.sql_mode, @@global.max_connections, @@local.autocommit

select @@SQL_MODE, @@GLOBAL.max_connections

select last_insert_id(), row_count(), found_rows()

select t1.a, t2.b from t1, t2 where t1.id = t2.id

select * from t1 join t2 on t1.a = t2.a

select * from t1 inner join t2 using (a, b)

select * from t1 left join t2 on t1.a = t2.a and t2.b = 1 right join t3 on t3.c = t2.c

select * from t1 left outer join t2 on 1 = 1 cross join t3 natural join t4

select * from t1 straight_join t2 on t1.a = t2.a

select * from (t1, t2) left join t3 on t1.a = t3.a

select * from (select a, 1 from t where b = 2) as x where x.a > 3

select * from (select 1) x, lateral (select 2) as y

select * from (values row(1, 2), row(3, 4)) as v (a, b)

select * from t use index (a)

select * from t use index (a, b) where c = 1

select * from t force index for join (a) where c = 1

select * from t ignore index (a), u use index for order by (b)

select * from t use key (a)

select * from t partition (p0, p1) where a = 1

select * from db.t where db.t.a = 1

select * from t for update

select * from t for update nowait

select * from t for share skip locked

select * from t for update of t

select * from t lock in share mode

select a from t union select b from u

select a from t union all select b from u order by 1 limit 5

(select 1) union (select 2) order by a limit 1

select a from t except select b from u

select a from t intersect select b from u

table t

table t order by a limit 5

values row(1, 2), row(3, 4)

values row(1)

with a as (select 1) select * from a

with a (x, y) as (select 1, 2), b as (select * from a where x = 3) select * from b

with recursive c as (select 1 as n union all select n + 1 from c where n < 10) select * from c

select row_number() over (order by a), rank() over (partition by b order by c desc), dense_rank() over w from t window w as (partition by a)

select sum(a) over (rows between 1 preceding and current row), lag(a, 1, 0) over (order by b), first_value(a) over w, ntile(4) over w from t window w as (order by c)

select a, grouping(a) from t group by a with rollup

select /*+ max_execution_time(1000) */ * from t

select /*+ no_index_merge(t) bka(u) */ a from t, u where a = 1

select /*+ set_var(sort_buffer_size = 16M) */ a from t

select /*+ */ a from t

select /* comment */ a from t

select a -- comment
from t

select a # comment
from t

-- comment in front
select a from t

/* comment in front */ select a from t

select a /*! , b */ from t

select a /*!50000 , b */ from t

select a /*!99999 , b */ from t

select /*!40001 SQL_NO_CACHE */ * from t

select a /* a /* b */ from t

select a /*M! , b */ from t

select a /*T! , b */ from t

select a /*T![auto_rand] , b */ from t

select a from t;

select a from t ;

select	a
from
	t	where  a=1

--: no mysql: it refuses the statement
select a,b from t where a=1and b=2

select(a)from(t)where(a)in(1)

--: no mysql: it refuses the statement
select a from t where a>=1and b<=2or c<>3

select 1a from t

select a1, _b, $c from t

select t.1a from t

--: no mysql: it refuses the statement
select a from t where b=1.e

insert into t values (1)

insert into t values (1, 2)

insert into t values (1), (2)

insert into t values (1, 2), (3, 4)

insert into t values (1, 2), (3, 4), (5, 6)

insert into t values (1, 'a', null), (2, 'b', null)

insert into t values (1, default), (2, default)

insert into t values (1, now()), (2, now())

insert into t values (a + 1, 2)

insert into t values ()

insert into t values (), ()

insert into t values (?)

insert into t values (?, ?)

insert into t values (?, ?), (?, ?)

insert into t values (-1, -2), (-3, -4)

insert into t values (1, (2), 3)

insert into t (a, b) values (1, 2)

insert into t (a, b) values (1, 2), (3, 4)

insert into t (a, b) value (1, 2)

insert into t (a) values (_utf8mb4'x'), (_utf8mb4'y')

insert into t (a, b) values (_binary'x', 1), (_binary'y', 2)

insert into db.t (`a`, b) values (x'00', 0x01)

insert t set a = 1, b = 'x', c = default

insert ignore into t values (1)

insert low_priority into t values (1)

insert delayed ignore t (a) values (1)

insert high_priority into t select * from u

insert into t select a, 1 from u where b = 2

insert into t (a, b) select 1, 2

insert into t (a) values (1) on duplicate key update a = 1

insert into t (a, b) values (1, 2), (3, 4) on duplicate key update a = values(a), b = b + 1

insert into t (a, b) values (1, 2) as n on duplicate key update a = n.a + 1

insert into t (a, b) values (1, 2) as n (x, y) on duplicate key update a = x

insert into t table u

insert into t values row(1, 2), row(3, 4)

insert into t partition (p0) values (1)

replace into t values (1, 2)

replace into t (a) values (1), (2)

replace t set a = 1

replace into t select * from u

update t set a = 1

update t set a = 1, b = 'x' where c = 2

update t set a = a + 1, b = b - 1 where id = 5 order by id limit 1

update low_priority ignore t set a = default where b is null

update t, u set t.a = u.b where t.id = u.id and u.c = 3

update t join u on t.id = u.id set t.a = 1, u.b = -2

update t set a = null

update t set a = (select max(b) from u), c = 5

update t as x set x.a = 1

update t set a = -1 where b in (1, 2) and c = 'x'

delete from t

delete from t where a = 1

delete from t where a in (1, 2, 3) order by b limit 10

delete low_priority quick ignore from t where a = 1

delete t from t join u on t.a = u.a where u.b = 2

delete from t using t, u where t.a = u.a

delete a, b from t a, u b where a.id = b.id

delete from t as x where x.a = 1

with a as (select 1 as x) delete from t where y in (select x from a)

with a as (select 1 as x) update t set y = 2 where y in (select x from a)

begin

BEGIN WORK

start transaction

start transaction read only

start transaction read write

start transaction with consistent snapshot

start transaction with consistent snapshot, read only

commit

commit work

commit and chain

commit and no chain no release

rollback

rollback work and chain

rollback to a

rollback to savepoint a

savepoint a

release savepoint a

set autocommit = 0

SET AUTOCOMMIT = 1

set autocommit = on

set @a = 1

set @a = 1, @b = 'x', @c = @a + 1

set @a := 1

set names utf8mb4

set names 'utf8mb4'

set names utf8mb4 collate utf8mb4_bin

set names default

set character set utf8mb4

set charset 'latin1'

set sql_mode = 'STRICT_ALL_TABLES'

set sql_mode = ''

set session sql_mode = 'ANSI', global max_connections = 10

set @@sql_mode = '', @@session.time_zone = '+00:00', @@global.max_connections = 5

set local time_zone = 'SYSTEM'

set persist max_connections = 100

set time_zone = default

set transaction isolation level read committed

set session transaction isolation level repeatable read, read only

set global transaction read write

set password = 'x'

set password for u@localhost = 'x'

set role default

set role r1, r2

set role all except r1

set default role all to u

set resource group g

set sql_select_limit = 100, wait_timeout = 28800

use db

USE `db`

show tables

show full tables from db like 'a%'

show tables where a = 1

show databases

show schemas like 'x'

show columns from t

show full columns from t from db

show fields in t

show index from t

show indexes from t in db

show keys from t

show create table t

show create database if not exists db

show create view v

show create procedure p

show table status like 't'

show variables

show variables like 'a%'

show session variables where variable_name = 'x'

show global variables like 'x'

show status

show global status like 'x'

show processlist

show full processlist

show warnings

show warnings limit 5

show errors

show count(*) warnings

show count(*) errors

show grants

show grants for u@'%'

show engines

show engine innodb status

show privileges

show plugins

show character set

show collation like 'utf8%'

show triggers

show events

show procedure status

show function status like 'x'

show binary logs

show binary log status

--: no mysql: it refuses the statement
show master status

show replica status

--: no mysql: it refuses the statement
show slave status

show binlog events in 'x' from 4 limit 2

show profiles

show open tables

describe t

desc t

desc t a

desc t 'a%'

explain t

explain select * from t where a = 1

explain format = json select * from t where a = 1

--: no mysql: it refuses the statement
explain format='brief' select * from t

explain analyze select * from t where a = 1

explain update t set a = 1

explain delete from t where a in (1, 2)

explain insert into t values (1, 2), (3, 4)

explain for connection 5

--: no mysql: it refuses the statement
explain extended select 1

prepare s from 'select 1'

prepare s from @a

execute s

execute s using @a, @b

deallocate prepare s

drop prepare s

call p()

call p(1, 'x', @a)

call db.p(1)

call p

do 1

do sleep(0), release_lock('x')

lock tables t read

--: no mysql: it refuses the statement
lock tables t read local, u as v write, w low_priority write

unlock tables

lock instance for backup

unlock instance

flush tables

flush tables with read lock

flush tables t, u with read lock

flush local privileges

flush binary logs, status

kill 5

kill query 5

kill connection 5

handler t open as h

handler t read first limit 1

handler t read a = (1) where b > 2

handler t close

xa start 'a'

xa begin 'a', 'b', 1

xa end 'a'

xa prepare 'a'

xa commit 'a' one phase

xa rollback 'a'

xa recover

analyze table t

analyze local table t, u

analyze table t update histogram on a with 5 buckets

optimize table t

check table t quick

checksum table t

repair table t

grant select on *.* to u

grant select (a), insert on db.t to 'u'@'localhost' with grant option

grant all privileges on `db`.* to u@`%`

grant r to u

revoke select on db.* from u

revoke all privileges, grant option from u

create user u

create user 'u'@'h' identified by 'x'

create user if not exists u@localhost identified with caching_sha2_password by 'x' password expire never

alter user u identified by 'x'

alter user u account lock

drop user u, v

rename user a to b

create role r

drop role r

create database db

create database if not exists db default character set utf8mb4 collate utf8mb4_bin

drop database db

drop schema if exists db

alter database db character set = utf8mb4

create table t (a int)

create table t (a int primary key, b varchar(20) not null default 'x', c decimal(10, 2) unsigned, d datetime(6) default current_timestamp(6) on update current_timestamp(6))

create table if not exists db.t (id bigint unsigned not null auto_increment, name varchar(255) character set utf8mb4 collate utf8mb4_bin comment 'the name', primary key (id), unique key u (name), key k (name(10), id desc)) engine = innodb default charset = utf8mb4 comment = 'x' auto_increment = 100

create table t (a enum('x', 'y'), b set('p', 'q'), c bit(1), d json, e text, f blob, g year, h tinyint(1), i double, j float(5, 2))

create table t (a int, b int generated always as (a + 1) virtual, c int as (a * 2) stored, check (a > 0), constraint c1 check (b < 10) not enforced)

create table t (a int, foreign key (a) references u (b) on delete cascade on update set null)

create table t (a int) partition by range (a) (partition p0 values less than (10), partition p1 values less than (20), partition p2 values less than maxvalue)

create table t (a int) partition by hash (a) partitions 4

create table t (a int) partition by list (a) (partition p0 values in (1, 2, 3), partition p1 values in (4))

create table t like u

create table t as select * from u where a = 1

create table t select 1 as a

create temporary table t (a int)

drop table t

drop table if exists t, u

drop temporary table t

alter table t add column a int

alter table t add column a int not null default 0 after b, drop column c, modify d varchar(10), change e f int, rename to u

alter table t add index k (a), add unique (b), drop primary key, add primary key (c)

alter table t add (a int, b int)

alter table t alter a set default 5, alter b drop default

alter table t engine = innodb, algorithm = inplace, lock = none

alter table t add partition (partition p3 values less than (30))

alter table t drop partition p0

alter table t truncate partition p0

alter table t rename column a to b, rename index i to j

alter table t auto_increment = 5

alter table t convert to character set utf8mb4

alter table t comment 'x'

create index i on t (a)

create unique index i on t (a, b desc)

create fulltext index i on t (a) with parser ngram

create index i on t ((lower(a)))

drop index i on t

truncate table t

truncate t

rename table a to b, c to d

create view v as select * from t where a = 1

create or replace view v (x, y) as select 1, 2

create algorithm = merge definer = u@h sql security invoker view v as select 1

drop view v

create procedure p () select 1

create procedure p (in a int, out b varchar(10)) begin select a; set b = 'x'; end

create function f (a int) returns int deterministic return a + 1

create trigger g before insert on t for each row set new.a = 1

create event e on schedule every 1 day do delete from t

drop procedure p

drop procedure if exists p

drop function f

drop trigger g

drop event e

load data infile 'x' into table t

load data local infile 'x' ignore into table t fields terminated by ',' enclosed by '"' lines terminated by '\n' ignore 1 lines (a, @b) set c = @b + 1

change replication source to source_host = 'h', source_port = 3306

start replica

stop replica

reset replica

purge binary logs to 'x'

install plugin p soname 'x'

shutdown

help 'select'

get diagnostics @a = number

signal sqlstate '45000' set message_text = 'x'

select a from t where a = 1 and a = 1 and a = 1

select a from t where a in (1) and b in (1, 2) and c in ('x')

select a, 1, 2, b, 3, c, 4, 5, 6 from t

select (1), (1, 2) = (3, 4), ((1))

select (1, 2, 3) in ((1, 2, 3), (4, 5, 6))

select f((1), (2)), g((1, 2), (3, 4))

select interval(5, 1, 10), greatest(1, 2, 3), least(a, 1), field('a', 'b', 'c'), elt(1, 'a', 'b'), find_in_set('a', 'a,b')

select * from t where a = 1 limit 1, 2

select * from t where date(a) >= '2026-01-01' and date(a) < date_add('2026-01-01', interval 1 day)

select a from t where a > -1 and b < - 1 and c = (-1) and d in (+1, -1) and e - -1 > 0

select a from t where a*-1 > 0 and b/-2 < 1 and c%-3 = 0 and not -1 and a like -1 and a between -1 and -2

select case when -1 then -2 else -3 end

select a, -1 from t group by a, -1 order by -1

select name, value, status, type, date, time, timestamp, year, text, data, user, password, role, order_id, key_name from t

select NAME, Value, STATUS, Type from t

select t.select, t.from, t.order, t.Key from t

select status.name, t.status from status

select date(a), time(a), year(a), value, t.date from t

select * from Status, `Order`, Mixed_Case

select * from user where user = 'x'

select a from t where ascii = 1 and action = 2 and begin = 3 and end = 4

select offset, first, last, next, any, some_col, at, local, global, session, share, level, mode from t

insert into comment (comment, data, date) values ('x', 1, '2026-01-01')

update status set status = 1 where status = 2

create table status (status int, type varchar(10), date date, time time, timestamp timestamp, text text, comment varchar(10) comment 'x')

select ? as x, ? y from t where a = ? and b in (?, ?) limit ?, ?

select sleep(1), benchmark(10, 1 + 1), uuid(), get_lock('a', 10), release_lock('a')

select inet_aton('1.2.3.4'), md5('x'), sha1('x'), sha2('x', 256), crc32('x'), to_base64('x'), aes_encrypt('a', 'b')

select st_astext(a), st_distance(a, b), point(1, 2), st_geomfromtext('point(1 1)'), linestring(point(1, 2), point(3, 4)) from t

select a from t tablesample system (10)

--: no mysql: it refuses the statement
select a from t as of timestamp '2026-01-01 00:00:00' where b = 1

select a, b from t where (a > 1 or b < 2) and not (c = 3)

select exists (select 1), not exists (select 2)

select 1 from dual

select 1 from dual where 1 = 1

select * from t where a collate utf8mb4_bin = 'x'

select * from t where a sounds like 'b'

select concat(_utf8mb4'a', _utf8mb4'b', 'c')

select a from t1 where a in (1,2,3) union select a from t2 where a in (1) union all select a from t3 where a in (?,?)

select * from t where a = 'x' or a = "y" or b = N'z'

select a into @x from t

select a, b into @x, @y from t limit 1

select a into outfile '/tmp/x' from t

select a into outfile '/tmp/x' fields terminated by ',' optionally enclosed by '"' lines terminated by '\n' from t

select a into dumpfile '/tmp/x' from t

--: no mysql: it refuses the statement
admin show ddl jobs

--: no mysql: it refuses the statement
admin check table t

--: no mysql: it refuses the statement
split table t between (0) and (1000) regions 10

--: no mysql: it refuses the statement
alter table t set tiflash replica 1

--: no mysql: it refuses the statement
create table t (a bigint auto_random(5) primary key)

create table t (a bigint primary key /*T![clustered_index] clustered */, b int)

--: no mysql: it refuses the statement
create sequence s start with 1 increment by 2

select nextval(s), lastval(s), setval(s, 10)

--: no mysql: it refuses the statement
select next value for s

--: no mysql: it refuses the statement
batch on id limit 100 delete from t where a = 1

--: no mysql: it refuses the statement
trace select 1

--: no mysql: it refuses the statement
set @@tidb_snapshot = '2026-01-01'

--: no mysql: it refuses the statement
show stats_meta

--: no mysql: it refuses the statement
recover table t

--: no mysql: it refuses the statement
flashback table t to u

--: no mysql: it refuses the statement
create placement policy p primary_region = 'x'

--: no mysql: it refuses the statement
import into t from 's3://x'

select /*+ hash_join(a, b), use_index(a, i) */ * from a join b on a.x = b.x

select tidb_version(), tidb_parse_tso(1)

select approx_count_distinct(a), approx_percentile(a, 99) from t

--: no mysql: it refuses the statement
kill tidb 5

select * from t where -1

select * from t join u on -1

select a from t having -1

select distinct -1

select all -1

do -1

select a from t order by -1

select a from t group by -1

select a from t group by -1, -1

select a from t order by 15

select a from t order by 1.5

select a from t order by 'x'

select a from t order by '1', 2

select a from t order by (1)

select a from t order by 1 + 1

select a from t order by a, 2

select a from t order by a, 2, 3, b, 4

select a, sum(b) over (partition by 1 order by 2, 3)

select group_concat(a order by 1 separator ',')

select a from t order by 0x10

select a from t order by -1, 2

select a from t group by 1, 2, -3

update t set a = 1 order by 1

--: no mysql: it refuses the statement
select a xor -1, a or -1, a || -1, a and -1, a && -1, a div -1, a mod -1, a | -1, a ^ -1, a & -1, a << -1, a >> -1, ~ -1, ! -1, a <=> -1, a != -1, a <= -1, a := -1

select @a := -1

set @a = -1

--: no mysql: it refuses the statement
set a = -1

--: no mysql: it refuses the statement
set @@a = -1

select binary -1

select case -1 when -2 then -3 end

select interval(-1, -2)

select a rlike -1, a regexp -1, a like -1 escape -1

--: no mysql: it refuses the statement
select a collate x - 1

--: no mysql: it refuses the statement
select a in (-1) - 1

select 'a' - 1

select ? - 1

--: no mysql: it refuses the statement
select a is null - 1

select null - 1

select true - 1

select now() - 1

select current_timestamp - 1

select @a - 1, @@port - 1

select `a` - 1

select a.b - 1

select count - 1, status - 1, status -1 from t

select 1 -1

select (1) - 1

select (1, 2) - 1

select 1, 2 - 1

select a from t limit 1 offset 2

insert into t values (-1)

insert into t values (+1, - 2)

select - 1

select + - + 1

select -(1)

select - a

select -1.5e3

select -0x10, -x'10', -b'1'

select -'a'

select -null

select interval -1 day + a

select a between -1 and -2

select sql_no_cache -1

create table t (a int default -1)

create table t (a int default null)

create table t (a int null)

create table t (a int null default null, b int not null)

create table t (a varchar(10) null, b timestamp null default null, c int comment 'x' null)

select not null

select a is not null, not null, null

select null

select coalesce(null, a, null)

update t set a = null, b = null

insert into t values (null), (null)

insert into t values (null, null), (null, null)

select if(null, null, null)

select case when null then null else null end

select a = null or null

select * from json_table('x', '$' columns (a int path '$' null on empty null on error)) t

select json_value(a, '$' null on error)

--: no mysql: it refuses the statement
select json_value(a, '$' default null on error)

alter table t alter a set default null

alter table t add constraint foreign key (a) references b (c) on delete set null

--: no mysql: it refuses the statement
set a = null

call p(null, 1)

--: no mysql: it refuses the statement
select @@port, @@read_only, @@status, @@global.read_only, @@global.port, @@`port`, @@session.`x`

select @@global . port

select @@sql_mode, @@SESSION.Sql_Mode

set global port = 1

set port = 1

--: no mysql: it refuses the statement
set names = 1

set @@session.autocommit = 1, @@autocommit = 1

select status.`a`, status.*, status . a, `status`.a from status

select a.status, a.`status`, a. status from t

select a.count(1)

select count (1)

select now ()

select max (a)

select user (), database (), if (1,2,3), left (a, 1)

select /*+ qb_name(x) */ a from t

select /*+ no_bnl(@qb1 t1, t2@qb2) */ a from t

select /*+ resource_group(g) set_var(a='x') set_var(b=1) mrr(t i, j) */ a from t

select /*+ bogus(x) */ a from t

select /*+ max_execution_time(1), bka(t) */ a from t

insert /*+ no_bnl() */ into t values (1)

update /*+ no_bnl(t) */ t set a = 1

select a /*+ bka(t) */ from t

select /*+ bka(t) */ /*+ mrr(t) */ a from t

(select /*+ bka(t) */ a from t)

select /*+ bka(`t x`) join_order(t1, t2) semijoin(firstmatch, loosescan) subquery(intoexists) index(t i) */ a from t

select /* x */ /*+ bka(t) */ a from t

select all /*+ bka(t) */ a from t

SELECT /*+ bka(t) */ a from t

select a from t where b = 1 /* a */ and c = 2 -- x

select {ts '2026-01-01 00:00:00'}, {t '10:00'}

select a from {oj t left outer join u on 1}

--: no mysql: it refuses the statement
select a.b.c, .b from t

--: no mysql: it refuses the statement
select .b from t

--: no mysql: it refuses the statement
select a from .t

select 1.a from t

--: no mysql: it refuses the statement
select 1..a

--: no mysql: it refuses the statement
select 0x, 0xg, 0b2, x'1'

select 0XFF, 0B1

select x 'ab'

select 1e, 1e5x, 1.5x from t

select e1, 1e1, 1e+1, 1e-1

select $a, a$b, `$a`

select a_ü, Ünï from t

select @`a``b`, @'x''y'

select @ a

select a from t where b = 'x' 'y' "z"

select N'a' 'b', _latin1'a' 'b'

select _foo'a'

--: no mysql: it refuses the statement
select _utf8 a, _binary from t

--: no mysql: it refuses the statement
select _utf8mb4 from t

--: no mysql: it refuses the statement
select 1 as _utf8mb4

--: no mysql: it refuses the statement
select a from t where a in (1) = 1, b

select a in (1), (2), (3)

select a in (1, 2), (3, 4)

select a in (1, 2) , 3

select (1), (2)

select (1, 2), (3, 4)

select (1), (2, 3), (4)

select (1), (2, 3), (4, 5), (6)

select ((1, 2), (3, 4))

select ((1), (2))

select (1, 2) , a, (3, 4)

insert into t values (1), (2, 3)

--: no mysql: it refuses the statement
select row(1), row(1, 2)

select a not in (1), a in ((1)), a in ((select 1)), a in ((1), 2)

select f(1), (2)

select f(1), f(2)

select a xor -1 from t

select a or -1 from t

select a || -1 from t

select a and -1 from t

select a && -1 from t

select a div -1 from t

select a mod -1 from t

select a | -1 from t

select a ^ -1 from t

select a & -1 from t

select a << -1 from t

select a >> -1 from t

select ~ -1 from t

select ! -1 from t

select not -1 from t

select a <=> -1 from t

select a != -1 from t

select a <> -1 from t

select a < -1 from t

select a > -1 from t

select a >= -1 from t

select a <= -1 from t

select a sounds like -1 from t

select a between 1 and -1 from t

select a not between -1 and -1 from t

--: no mysql: it refuses the statement
select a is true - 1 from t

select {d -1}

select match (a) against (-1)

select distinctrow -1

select straight_join -1 from t

select high_priority -1 from t

select exists (select -1)

select cast(-1 as signed)

select extract(day from -1)

select trim(both -1 from a)

select substring(a from -1 for -1)

select char(-1 using utf8mb4)

select position(-1 in -1)

select a member of (-1)

select convert(-1, char)

select timestampadd(day, -1, a)

--: no mysql: it refuses the statement
select a -> -1 from t

create function f() returns int return -1

create procedure p() if -1 then select 1; elseif -1 then select 2; end if

create procedure p() while -1 do select 1; end while

create procedure p() repeat select 1; until -1 end repeat

create procedure p() begin declare x int default -1; end

create event e on schedule every -1 day do select 1

create event e on schedule at -1 do select 1

create event e on schedule every 1 day starts -1 ends -1 do select 1

create table t (a int) partition by range (a) (partition p values less than (-1))

create table t (a int) partition by list (a) (partition p values in (-1, -2))

update t set a = -1 where -1

select a from t limit 5 offset 3

set @a := -1

set global port = -1

select a from t where a = -1 order by a desc, -1

select 1 union select -1

select a from t where -1 = -1

select sum(distinct -1)

select count(all -1)

values row(-1)

call p(-1)

kill -1

select if(-1, -1, -1)

select a in (b, -1) from t

--: no mysql: it refuses the statement
select a as -1

select a from t group by a having a > -1

select with_x -1 from t

select (select -1)

select a from t where a = all (select -1)

select current_date -1

select a from t window w as (order by -1 rows between 1 preceding and 1 following)

select a from t order by 99999999999

select a from t order by 2147483648

select a from t order by 18446744073709551615

select a from t order by 007

select a from t order by 1 asc

--: no mysql: it refuses the statement
select a from t order by 1 collate x

select a from t order by 1 div 2

select a from t order by 1 is null

select a from t order by 1 for update

select a from t order by 1 into @a

select a from t order by case when 1 then 2 end, 3

select a from t order by f(1, 2), 3

select a from t order by a, (1), 2

select a from t order by (a), 2, (3)

select a from t order by a = 1, 2

select a from t group by 1 with rollup order by 2

select a from t group by rollup(1, 2)

select a from t group by 1, 2 order by 3, 4 limit 5, 6

select a from t union select b from u order by 1, 2

delete from t order by 1 limit 2

select a, 1, 2 from t order by 1, 2

select a from t order by 'x', 2, 3

select a from t order by a, 'x', 2

select a from t order by null

select a from t order by null, 1

select a from t order by 1, null

select a from t group by -1, 2, a, 3

--: no mysql: it refuses the statement
load data infile 'x' into table t fields terminated by 1

create user u identified by 'x', v identified by 'y'

create table t (a int) partition by key (a) partitions 4

create table t (a int) partition by range (a) subpartition by hash (a) subpartitions 2 (partition p values less than (1))

alter table t order by a, b

select a from t where a = _latin1 x'41' and b = _binary'x' and c in (_binary'x')

--: no mysql: it refuses the statement
select a from t where a in (_binary'x', 'y'), (_binary'x')

select a, (_binary'x', 'y') from t

select 1 is not null, 2 is null

alter table t modify a int not null default 5, modify b int null

create table t (a int) comment 'x'

create table t (a int not null auto_increment, b text not null, c decimal(10,2) null default 0.5, d enum('a','b') null default 'a')

create table t (a int default (null), b varchar(5) collate utf8mb4_bin null, c bit(1) default b'0')

create table t (a timestamp null on update current_timestamp)

select ifnull(null, 1), a <=> null, (null), (null, 1)

select a is null and b = null

--: no mysql: it refuses the statement
set a.b = 1

select a from t where (a = 1)

select a from t where (1)

select a from t where (1) and (2)

select a from t where a = (1)

select a from t where (a, 1) = (2, 3)

select count(1), count('x'), sum(-1)

select a from (select 1) t

select a from t where exists (select 1)

with a (b) as (select 1) select 2

insert into t (a) values (1), (2), (3) on duplicate key update a = 1, b = 2

insert into t select 1, 2 union select 3, 4

lock tables a read local, b as c write

select sql_buffer_result sql_no_cache 1

--: no mysql: it refuses the statement
select 1;select 2

select a from t where a='x'/*c*/and b=1--1

select a from t where a=1--1

select a from t where a=1-- 1

select a/**/from t

select a from t /*!999999 where b = 1 */

select a from t /*!90703 where b = 1 */

select a from t /*!090704 where b = 1 */

select a from t /*!100000 where b = 1 */

select a from t /*!80000where b = 1*/

--: no mysql: it refuses the statement
select a from t /*!8000 where b = 1*/

select a from t /*! /* x */ where b = 1 */

select a from t /*!99999 /* x */ where b = 1 */

select @a, 1

select 1, @a, 2, 3

select @`a`, 1

select (@a), (@a, 1)

select a from t where a in (@a)

select a from t where a in (@a, 1)

select a from t order by 4294967295

select a from t order by 4294967296

select a from t order by 65536

select a from t order by 9999999999

select a from t order by 2147483649

select a from t order by 3000000000

select a from t limit 1, 1

select a from t where a in (1)and b in(2)

select a from t where b = 1 or (1) in (2)

select a from t where a in (1, 2) and (a, b) in ((1, 2))

--: no mysql: it refuses the statement
select json_table(1)

select @@global.port, @@port

--: no mysql: it refuses the statement
select @@ port

select @@`port`

select 1 from t where a = 'x' order by (select 1), 2

select a from t order by if(a, 1, 2), 3

select a from t order by (select b from u order by 1), 2

select a from t group by 1 having a in (1, 2) order by 2

select a from t order by 1 limit 1 offset 2

select a, rank() over (order by 1), 2, 3 from t

select a, 1 from t group by 1 union select 1, 2

select date_add(a, interval 1 day), 2 from t group by interval 1 day + a, 2

create table t (a int, b int null, c varchar(3) not null)

create table t (a int as (null) null)

create table t (a int check (a is not null) null)

create table t select null as a, not null as b

create view v as select not null, a is not null

alter table t add a set('x') null

--: no mysql: it refuses the statement
create procedure p() begin declare a int default null; select null, not null; if a is null then select null; end if; set a = null; return null; end

insert into t select null, 1 from u where a is null and not null

select a from t where a not in (null) and null is null

select long_name_of_a_column_0, long_name_of_a_column_1, long_name_of_a_column_2, long_name_of_a_column_3, long_name_of_a_column_4, long_name_of_a_column_5, long_name_of_a_column_6, long_name_of_a_column_7, long_name_of_a_column_8, long_name_of_a_column_9, long_name_of_a_column_10, long_name_of_a_column_11, long_name_of_a_column_12, long_name_of_a_column_13, long_name_of_a_column_14, long_name_of_a_column_15, long_name_of_a_column_16, long_name_of_a_column_17, long_name_of_a_column_18, long_name_of_a_column_19, long_name_of_a_column_20, long_name_of_a_column_21, long_name_of_a_column_22, long_name_of_a_column_23, long_name_of_a_column_24, long_name_of_a_column_25, long_name_of_a_column_26, long_name_of_a_column_27, long_name_of_a_column_28, long_name_of_a_column_29, long_name_of_a_column_30, long_name_of_a_column_31, long_name_of_a_column_32, long_name_of_a_column_33, long_name_of_a_column_34, long_name_of_a_column_35, long_name_of_a_column_36, long_name_of_a_column_37, long_name_of_a_column_38, long_name_of_a_column_39, long_name_of_a_column_40, long_name_of_a_column_41, long_name_of_a_column_42, long_name_of_a_column_43, long_name_of_a_column_44, long_name_of_a_column_45, long_name_of_a_column_46, long_name_of_a_column_47, long_name_of_a_column_48, long_name_of_a_column_49, long_name_of_a_column_50, long_name_of_a_column_51, long_name_of_a_column_52, long_name_of_a_column_53, long_name_of_a_column_54, long_name_of_a_column_55, long_name_of_a_column_56, long_name_of_a_column_57, long_name_of_a_column_58, long_name_of_a_column_59, long_name_of_a_column_60, long_name_of_a_column_61, long_name_of_a_column_62, long_name_of_a_column_63, long_name_of_a_column_64, long_name_of_a_column_65, long_name_of_a_column_66, long_name_of_a_column_67, long_name_of_a_column_68, long_name_of_a_column_69, long_name_of_a_column_70, long_name_of_a_column_71, long_name_of_a_column_72, long_name_of_a_column_73, long_name_of_a_column_74, long_name_of_a_column_75, long_name_of_a_column_76, long_name_of_a_column_77, long_name_of_a_column_78, long_name_of_a_column_79 from t

select a from t where b in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 142, 143, 144, 145, 146, 147, 148, 149, 150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 160, 161, 162, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 174, 175, 176, 177, 178, 179, 180, 181, 182, 183, 184, 185, 186, 187, 188, 189, 190, 191, 192, 193, 194, 195, 196, 197, 198, 199, 200, 201, 202, 203, 204, 205, 206, 207, 208, 209, 210, 211, 212, 213, 214, 215, 216, 217, 218, 219, 220, 221, 222, 223, 224, 225, 226, 227, 228, 229, 230, 231, 232, 233, 234, 235, 236, 237, 238, 239, 240, 241, 242, 243, 244, 245, 246, 247, 248, 249, 250, 251, 252, 253, 254, 255, 256, 257, 258, 259, 260, 261, 262, 263, 264, 265, 266, 267, 268, 269, 270, 271, 272, 273, 274, 275, 276, 277, 278, 279, 280, 281, 282, 283, 284, 285, 286, 287, 288, 289, 290, 291, 292, 293, 294, 295, 296, 297, 298, 299, 300, 301, 302, 303, 304, 305, 306, 307, 308, 309, 310, 311, 312, 313, 314, 315, 316, 317, 318, 319, 320, 321, 322, 323, 324, 325, 326, 327, 328, 329, 330, 331, 332, 333, 334, 335, 336, 337, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347, 348, 349, 350, 351, 352, 353, 354, 355, 356, 357, 358, 359, 360, 361, 362, 363, 364, 365, 366, 367, 368, 369, 370, 371, 372, 373, 374, 375, 376, 377, 378, 379, 380, 381, 382, 383, 384, 385, 386, 387, 388, 389, 390, 391, 392, 393, 394, 395, 396, 397, 398, 399) and c = 1

select a from t where a0 = 0 and a1 = 1 and a2 = 2 and a3 = 3 and a4 = 4 and a5 = 5 and a6 = 6 and a7 = 7 and a8 = 8 and a9 = 9 and a10 = 10 and a11 = 11 and a12 = 12 and a13 = 13 and a14 = 14 and a15 = 15 and a16 = 16 and a17 = 17 and a18 = 18 and a19 = 19 and a20 = 20 and a21 = 21 and a22 = 22 and a23 = 23 and a24 = 24 and a25 = 25 and a26 = 26 and a27 = 27 and a28 = 28 and a29 = 29 and a30 = 30 and a31 = 31 and a32 = 32 and a33 = 33 and a34 = 34 and a35 = 35 and a36 = 36 and a37 = 37 and a38 = 38 and a39 = 39 and a40 = 40 and a41 = 41 and a42 = 42 and a43 = 43 and a44 = 44 and a45 = 45 and a46 = 46 and a47 = 47 and a48 = 48 and a49 = 49 and a50 = 50 and a51 = 51 and a52 = 52 and a53 = 53 and a54 = 54 and a55 = 55 and a56 = 56 and a57 = 57 and a58 = 58 and a59 = 59 and a60 = 60 and a61 = 61 and a62 = 62 and a63 = 63 and a64 = 64 and a65 = 65 and a66 = 66 and a67 = 67 and a68 = 68 and a69 = 69 and a70 = 70 and a71 = 71 and a72 = 72 and a73 = 73 and a74 = 74 and a75 = 75 and a76 = 76 and a77 = 77 and a78 = 78 and a79 = 79 and a80 = 80 and a81 = 81 and a82 = 82 and a83 = 83 and a84 = 84 and a85 = 85 and a86 = 86 and a87 = 87 and a88 = 88 and a89 = 89 and a90 = 90 and a91 = 91 and a92 = 92 and a93 = 93 and a94 = 94 and a95 = 95 and a96 = 96 and a97 = 97 and a98 = 98 and a99 = 99 and a100 = 100 and a101 = 101 and a102 = 102 and a103 = 103 and a104 = 104 and a105 = 105 and a106 = 106 and a107 = 107 and a108 = 108 and a109 = 109 and a110 = 110 and a111 = 111 and a112 = 112 and a113 = 113 and a114 = 114 and a115 = 115 and a116 = 116 and a117 = 117 and a118 = 118 and a119 = 119 and a120 = 120 and a121 = 121 and a122 = 122 and a123 = 123 and a124 = 124 and a125 = 125 and a126 = 126 and a127 = 127 and a128 = 128 and a129 = 129 and a130 = 130 and a131 = 131 and a132 = 132 and a133 = 133 and a134 = 134 and a135 = 135 and a136 = 136 and a137 = 137 and a138 = 138 and a139 = 139 and a140 = 140 and a141 = 141 and a142 = 142 and a143 = 143 and a144 = 144 and a145 = 145 and a146 = 146 and a147 = 147 and a148 = 148 and a149 = 149

select ÄÖÜ, `ÑAME`, Σίσυφος, `İ` from Ünï where 'É' = Ç

select 'a\0b'

select a from t where b = 'x' -- ünd
 and c = 1

/* a */ -- b
# c
select 1 /* d */ ; -- e

select 1 ;;

insert into t (a, b) values (1, 'x'), (2, 'y'), (3, null), (-4, 0x1f)

select case a when 'x' then null when null then 1 else -1 end from t where b is not null and not (c is null)

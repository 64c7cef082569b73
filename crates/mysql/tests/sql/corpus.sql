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

select a,b from t where a=1and b=2

select(a)from(t)where(a)in(1)

select a from t where a>=1and b<=2or c<>3

select 1a from t

select a1, _b, $c from t

select t.1a from t

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

show master status

show replica status

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

explain format='brief' select * from t

explain analyze select * from t where a = 1

explain update t set a = 1

explain delete from t where a in (1, 2)

explain insert into t values (1, 2), (3, 4)

explain for connection 5

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

select a from t where b = :c

select ? as x, ? y from t where a = ? and b in (?, ?) limit ?, ?

select sleep(1), benchmark(10, 1 + 1), uuid(), get_lock('a', 10), release_lock('a')

select inet_aton('1.2.3.4'), md5('x'), sha1('x'), sha2('x', 256), crc32('x'), to_base64('x'), aes_encrypt('a', 'b')

select st_astext(a), st_distance(a, b), point(1, 2), st_geomfromtext('point(1 1)'), linestring(point(1, 2), point(3, 4)) from t

select a from t tablesample system (10)

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

admin show ddl jobs

admin check table t

split table t between (0) and (1000) regions 10

alter table t set tiflash replica 1

create table t (a bigint auto_random(5) primary key)

create table t (a bigint primary key /*T![clustered_index] clustered */, b int)

create sequence s start with 1 increment by 2

select nextval(s), lastval(s), setval(s, 10)

select next value for s

batch on id limit 100 delete from t where a = 1

trace select 1

set @@tidb_snapshot = '2026-01-01'

show stats_meta

recover table t

flashback table t to u

create placement policy p primary_region = 'x'

import into t from 's3://x'

select /*+ hash_join(a, b), use_index(a, i) */ * from a join b on a.x = b.x

select tidb_version(), tidb_parse_tso(1)

select approx_count_distinct(a), approx_percentile(a, 99) from t

kill tidb 5

select 1+1 as a, 2-3 as b, 2*3 as c, 5/2 as d, 5 div 2 as e, 5 % 2 as f, -7 div 2 as g, -7 % 2 as h;
select 1/3 as a, 2/3 as b, 10/3 as c, 1/7 as d, 100/7 as e, 0/5 as f;
select 1.0/3 as a, 1.00/3 as b, 1.000/3.0 as c, 22.0/7.00 as d;
select 1/0 as a, 1 div 0 as b, 1 % 0 as c, 1.5 % 0 as d;
select 5.5 % 2 as a, -5.5 % 2 as b, 5.5 div 2 as c, 7.25 % 0.5 as d;
select 0.1+0.2 as a, 0.1*0.2 as b, 0.1-0.2 as c, 1e0*0.1 as d, 0.1e0+0.2e0 as e;
select 1.10+2.2 as a, 1.10*2.2 as b, 1.005*1000 as c, 99999999.99*99999999.99 as d;
select 12345678901234567890 + 1 as a, 123456789012345678901234567890 * 2 as b;
select 9223372036854775807 as a, -9223372036854775808 as b, 18446744073709551615 as c;
select 9223372036854775807 + 1 as a;
select 18446744073709551615 + 1 as a;
select 1 - 2 as a, cast(1 as unsigned) - 2 as b;
select round(2.5) as a, round(-2.5) as b, round(2.45, 1) as c, round(2.55, 1) as d, round(1234.567, -2) as e, round(1.5e0) as f, round(2.5e0) as g;
select truncate(2.567, 2) as a, truncate(-2.567, 1) as b, truncate(1234, -2) as c;
select ceil(1.2) as a, ceil(-1.2) as b, floor(1.8) as c, floor(-1.8) as d, ceiling(5) as e;
select abs(-5) as a, abs(-5.50) as b, abs(5e0) as c, sign(-3) as d, sign(0) as e, sign(2.5) as f;
select mod(10, 3) as a, mod(10.5, 3) as b, mod(-10, 3) as c, 10 mod 3 as d;
select greatest(1, 2, 3) as a, least(1.5, 2, 3) as b, greatest(1, null) as c;
select 7 & 3 as a, 7 | 8 as b, 7 ^ 2 as c, ~0 as d, 1 << 4 as e, 256 >> 2 as f;
select 1 = 1.0 as a, 1 = 1e0 as b, '1' = 1 as c, 1 < 2 as d, 2 >= 3 as e, 1 <> 1 as f, null = null as g, null <=> null as h, 1 <=> null as i;
-- refused
select not 1 as a, not 0 as b, not null as c, !1 as d, 1 and 0 as e, 1 or null as f, 0 and null as g, 1 xor 1 as h, null xor 1 as i;
select 1 and null as a, 0 or null as b, not (1 = 2) as c, 1 || 0 as d, 1 && 1 as e;
-- as tidb
select - - 5 as a, -(-5) as b, +5 as c, 2 + 3 * 4 as d, (2 + 3) * 4 as e, 10 - 4 - 3 as f;
select cast('12.7' as signed) as a, cast(12.7 as signed) as b, cast(-12.5 as signed) as c, cast(12.5e0 as signed) as d;
select cast(3.14159 as decimal(5,2)) as a, cast('1.005' as decimal(10,2)) as b, cast(5 as decimal(10,3)) as c, cast(1e3 as decimal(10,1)) as d;
-- differs
select cast(1 as double) as a, cast('1.5' as double) as b, cast(1/3 as double) as c;
select cast(-1 as unsigned) as a, cast(5 as unsigned) as b;
select cast(123 as char) as a, cast(1.50 as char) as b, cast(1e0 as char) as c, cast(123456 as char(3)) as d;
select pow(2, 10) as a, power(2, 0.5) as b, sqrt(16) as c, sqrt(2) as d, sqrt(-1) as e;
select exp(1) as a, ln(2) as b, log10(1000) as c, log2(8) as d, ln(0) as e;
-- refused
select pi() as a;
select 5 between 1 and 10 as a, 5 not between 1 and 10 as b, 5 between 6 and 10 as c, null between 1 and 2 as d;
select 3 in (1,2,3) as a, 4 in (1,2,3) as b, 4 not in (1,2,null) as c, null in (1) as d, 1 in (1,null) as e;
-- refused
select if(1 > 2, 'a', 'b') as a, ifnull(null, 5) as b, nullif(1, 1) as c, nullif(1, 2) as d, coalesce(null, null, 3) as e;
-- refused
select case when 1 > 2 then 'x' when 2 > 1 then 'y' else 'z' end as a, case 3 when 1 then 'one' when 3 then 'three' end as b;
-- differs
select case when 1 > 2 then 1 else 2.5 end as a, case when 1 < 2 then 1 else 2.5 end as b;
select true as a, false as b, true + true as c, null as d;
select 1 as `a b`, 2 as "c";
select 0x41 as a, x'4142' as b, hex(255) as c, hex('abc') as d;
select 1.0 as a, 1.50 as b, 0.000 as c, -0.0 as d, 1e2 as e, 1.5e-3 as f;
select 100000000000000 * 1e0 as a, 1e15 as b, 1e16 as c, 123456789.123e0 as d, 1e-5 as e, 1.7976931348623157e308 as f;
select 2 > 1 > 0 as a, 1 = 2 = 0 as b, 3 - 2 > 0 as c;
select 7 div 2.5 as a, 7.5 div 2 as b, -7.5 div 2 as c;
create table n (id int primary key, i int, u int unsigned, b bigint, d decimal(10,2), w decimal(30,10), f double, r float, t tinyint);
insert into n values (1, 10, 5, 9223372036854775807, 12.50, 12345678901234567890.0123456789, 1.5, 0.1, 1), (2, -3, 0, -9223372036854775808, -0.05, -0.0000000001, -2.25, 3.3, -128), (3, null, null, null, null, null, null, null, null), (4, 7, 4294967295, 0, 99999999.99, 0, 1e100, 16777216, 127);
-- as tidb
select * from n order by id;
select id, i + 1 as a, i * 2 as b, i / 3 as c, i div 3 as e, i % 3 as g, -i as h from n order by id;
select id, d + 1 as a, d * 2 as b, d / 3 as c, d * d as e, d - i as g, d % 3 as h from n order by id;
select id, w + 1 as a, w * 2 as b, w / 3 as c, w + d as e from n order by id;
select id, f + 1 as a, f * 2 as b, f / 3 as c, f + d as e from n order by id;
select id, d / i as a, i / d as b, d / w as c from n where id in (1, 2) order by id;
select id, round(d, 1) as a, round(w, 3) as b, truncate(d, 1) as c, ceil(d) as e, floor(w) as g, abs(d) as h from n order by id;
select id from n where d = 12.5 order by id;
select id from n where d = '12.5' order by id;
select id from n where d > 0 order by id;
select id from n where w < 0 order by id;
select id from n where d > i order by id;
select id from n where d between -1 and 13 order by id;
select id from n where i in (10, 7.0, 99) order by id;
select id from n where f = 1.5 order by id;
select id from n where u > 4000000000 order by id;
select id from n where b = 9223372036854775807;
select id, b + 1 as a from n where id = 1;
select id, u - 10 as a from n where id = 2;
select id, d from n order by d desc, id;
select id, w from n order by w, id;
select id, d > w as a, d = w as b, d <=> null as c, i <=> null as e from n order by id;
select distinct d > 0 as a from n order by a;
-- differs
select id, ifnull(d, 0) as a, coalesce(i, d, 5) as b, if(d > 0, d, -d) as c, nullif(d, 12.50) as e from n order by id;
-- as tidb
select id, case when i > 5 then d when i < 0 then w else 0 end as a from n order by id;
select id, cast(d as char) as a, cast(d as signed) as b, cast(f as decimal(10,3)) as c, cast(i as decimal(8,2)) as e from n where id < 4 order by id;
select id, concat(d, '|', i, '|', w) as a from n where id < 3 order by id;
-- differs
select id, greatest(i, d) as a, least(d, w) as b from n where id < 3 order by id;
select id from n where not (i > 5) order by id;
select id from n where i is not null and (d > 5 or i < 0) order by id;
select id from n where i order by id;
select id from n where d order by id;
select id, -d as a, - w as b from n where id = 1;
select id, t + 1 as a, t * t as b from n where id = 2;
-- refused
select format(1234567.891, 2) as a;
-- refused
select conv('a', 16, 2) as a;
-- refused
select bit_count(7) as a;
-- refused
select rand() > 2 as a;

create table w (id int primary key, g varchar(5), v decimal(8,2), n int, d date);
insert into w values (1, 'a', 10.00, 1, '2026-01-01'), (2, 'a', 20.00, 2, '2026-01-02'), (3, 'a', 20.00, null, '2026-01-03'), (4, 'b', 5.50, 4, '2026-01-01'), (5, 'b', null, 5, '2026-01-05'), (6, 'B', 7.25, 6, '2026-01-06'), (7, null, 1.00, 7, null);
select id, row_number() over (order by id) as r from w order by id;
select id, row_number() over (partition by g order by id) as r from w order by id;
select id, rank() over (order by v) as r, dense_rank() over (order by v) as d from w order by id;
select id, rank() over (partition by g order by v desc) as r from w order by id;
select id, sum(v) over () as s, avg(v) over () as a, count(*) over () as n, min(v) over () as i, max(v) over () as x from w order by id;
select id, sum(v) over (order by id) as s, avg(v) over (order by id) as a, count(v) over (order by id) as n from w order by id;
select id, sum(v) over (partition by g order by id) as s from w order by id;
select id, sum(n) over (order by id rows between 1 preceding and 1 following) as s, avg(n) over (order by id rows 2 preceding) as a from w order by id;
select id, sum(v) over (order by id rows between unbounded preceding and current row) as s from w order by id;
select id, sum(v) over (order by id rows between current row and unbounded following) as s from w order by id;
select id, sum(v) over (order by v) as s from w order by id;
select id, lag(v) over (order by id) as a, lead(v) over (order by id) as b, lag(v, 2) over (order by id) as c, lag(n, 1, 0) over (order by id) as d from w order by id;
select id, lag(v, 1, 0) over (order by id) as d, lead(g, 1, 'none') over (order by id) as e from w order by id;
select id, first_value(v) over (partition by g order by id) as a, last_value(v) over (partition by g order by id) as b, nth_value(v, 2) over (partition by g order by id) as c from w order by id;
select id, last_value(id) over (partition by g order by id rows between unbounded preceding and unbounded following) as b from w order by id;
select id, ntile(3) over (order by id) as a, percent_rank() over (order by id) as b, cume_dist() over (order by id) as c from w order by id;
select id, v / sum(v) over () as share, round(v * 100 / sum(v) over (partition by g), 2) as pct from w order by id;
select id, v - lag(v) over (order by id) as diff, (v - lag(v) over (order by id)) / lag(v) over (order by id) as rate from w order by id;
select g, sum(v) as s, rank() over (order by sum(v) desc) as r from w group by g order by r, g;
select g, sum(v) as s, sum(sum(v)) over () as t from w where g is not null group by g order by s;
select id, row_number() over win as r, sum(v) over win as s from w window win as (partition by g order by id) order by id;
select * from (select id, g, row_number() over (partition by g order by v desc, id) as r from w) as q where r = 1 order by id;
select id, max(d) over (partition by g) as m, min(d) over (order by id) as i, datediff(d, min(d) over (partition by g)) as x from w order by id;
select id from w where row_number() over (order by id) = 1;
select id, row_number() over (order by g, id) as r from w order by id;
select id, rank() over (order by g) as r from w order by id;
-- differs
select id, count(distinct g) over () as n from w;
-- refused
select id, sum(v) over (order by d range between interval 1 day preceding and current row) as s from w order by id;
-- refused
select id, sum(n) over (order by n range between 1 preceding and 1 following) as s from w order by id;
select id, sum(v) over (partition by g order by id desc) as s from w order by id;
select id, case when v > avg(v) over () then 'high' else 'low' end as h from w order by id;
-- differs
select id, max(g) over (order by id) as m from w order by id;
select id, group_concat(g) over () as x from w;
select id, sum(case when n > 3 then v else 0 end) over (order by id) as s from w order by id;
select id, row_number() over () as r from w order by r limit 1;
select distinct count(*) over (partition by g) as n from w order by n;
select id, avg(n) over (partition by g) as a, sum(n) over (partition by g) * 2 as b from w order by id;
-- refused
select id, stddev(n) over () as x from w order by id;
select id, lag(v) ignore nulls over (order by id) as a from w order by id;
select id, first_value(n) respect nulls over (order by id) as a from w order by id;

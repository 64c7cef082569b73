// Checks of mysql2 for Node: `node suite.mjs PORT USER PASSWORD SERVER` prints `PASS: name` or `FAIL: name`, and why on the next line.
import mysql from 'mysql2/promise';
import plain from 'mysql2';
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';

const [port, user, password, server] = process.argv.slice(2);
const base = { host: '127.0.0.1', port: Number(port), user, password, database: 'suite', connectTimeout: 20000 };
const settings = {
  plain: {},
  ...(server === 'mysql' ? { tls: { ssl: { rejectUnauthorized: false } } } : {}),
  compressed: { compress: true },
};
process.on('uncaughtException', (error) => console.log(`  uncaught: ${error.message}`));
const late = (ms) => new Promise((_, no) => setTimeout(() => no(new Error('it hangs')), ms).unref());
let prefix = '';
let setting = {};

async function check(name, work, more = {}) {
  const full = `${prefix}: ${name}`;
  let c;
  try {
    await Promise.race([(async () => {
      c = await mysql.createConnection({ ...base, ...setting, ...more });
      await work(c);
    })(), late(40000)]);
    console.log(`PASS: ${full}`);
  } catch (error) {
    console.log(`FAIL: ${full}\n  ${full}: ${String(error && error.message).split('\n').join(' ')}`);
  } finally {
    c?.destroy();
  }
}

const rows = async (c, sql, args) => (await (args ? c.execute(sql, args) : c.query(sql)))[0];
const table = async (c, columns) => {
  await c.query('DROP TABLE IF EXISTS n');
  await c.query(`CREATE TABLE n (${columns})`);
};
const fails = async (work, code) => {
  await assert.rejects(work, (error) => { assert.equal(error.code, code); return true; });
};

async function all() {
  await check('select 1', async (c) => assert.deepEqual(await rows(c, 'SELECT 1 AS a'), [{ a: 1 }]));
  await check('select 1, prepared', async (c) => assert.deepEqual(await rows(c, 'SELECT ? + 0 AS a', [1]).then((r) => Number(r[0].a)), 1));
  await check('integers', async (c) => {
    await table(c, 'a TINYINT, b BIGINT, c BIGINT UNSIGNED');
    await c.execute('INSERT INTO n VALUES (?, ?, ?)', [-128, '-9223372036854775808', '18446744073709551615']);
    const [r] = await rows(c, 'SELECT * FROM n WHERE a < ?', [0]);
    assert.deepEqual([r.a, String(r.b), String(r.c)], [-128, '-9223372036854775808', '18446744073709551615']);
  }, { supportBigNumbers: true, bigNumberStrings: true });
  await check('decimals and doubles', async (c) => {
    await table(c, 'a DECIMAL(30,10), b DOUBLE');
    await c.execute('INSERT INTO n VALUES (?, ?)', ['12345678901234567890.0123456789', 1.5e300]);
    assert.deepEqual(await rows(c, 'SELECT * FROM n WHERE b > ?', [1]), [{ a: '12345678901234567890.0123456789', b: 1.5e300 }]);
  });
  await check('dates', async (c) => {
    await table(c, 'a DATE, b DATETIME(6), c TIME(3)');
    await c.execute('INSERT INTO n VALUES (?, ?, ?)', ['2024-02-29', '2024-02-29 23:59:59.123456', '-12:34:56.789']);
    assert.deepEqual(await rows(c, 'SELECT * FROM n WHERE a > ?', ['2000-01-01']), [{ a: '2024-02-29', b: '2024-02-29 23:59:59.123456', c: '-12:34:56.789' }]);
  }, { dateStrings: true });
  await check('text of four bytes', async (c) => assert.equal((await rows(c, 'SELECT ? AS a', ['\u{1F30A} \u6c34']))[0].a, '\u{1F30A} \u6c34'));
  await check('bytes', async (c) => {
    await table(c, 'a VARBINARY(300)');
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    await c.execute('INSERT INTO n VALUES (?)', [bytes]);
    assert.deepEqual((await rows(c, 'SELECT a FROM n'))[0].a, bytes);
  });
  await check('nulls', async (c) => {
    await table(c, 'a INT, b TEXT');
    await c.execute('INSERT INTO n VALUES (?, ?)', [null, null]);
    assert.deepEqual(await rows(c, 'SELECT * FROM n WHERE a IS NULL OR a = ?', [1]), [{ a: null, b: null }]);
  });
  await check('json', async (c) => {
    await table(c, 'a JSON');
    await c.execute('INSERT INTO n VALUES (?)', ['{"a": [1, 2]}']);
    assert.equal(Number((await rows(c, "SELECT JSON_EXTRACT(a, '$.a[1]') AS x FROM n"))[0].x), 2);
  });
  await check('rows as arrays', async (c) => assert.deepEqual((await c.query({ sql: 'SELECT 1, 2', rowsAsArray: true }))[0], [[1, 2]]));
  await check('tables that are nested', async (c) => assert.deepEqual((await c.query({ sql: 'SELECT x.a FROM (SELECT 1 AS a) x', nestTables: true }))[0], [{ x: { a: 1 } }]));
  await check('placeholders with names', async (c) => assert.equal(Number((await c.execute('SELECT :a + :b AS c', { a: 1, b: 2 }))[0][0].c), 3), { namedPlaceholders: true });
  await check('what an insert tells', async (c) => {
    await table(c, 'id INT PRIMARY KEY AUTO_INCREMENT, a INT');
    const [first] = await c.query('INSERT INTO n (a) VALUES (1), (2)');
    assert.equal(first.affectedRows, 2);
    assert.ok(first.insertId > 0);
  });
  await check('affected and changed rows', async (c) => {
    await table(c, 'a INT');
    await c.query('INSERT INTO n VALUES (1), (1)');
    const [same] = await c.query('UPDATE n SET a = 1');
    assert.deepEqual([same.affectedRows, same.changedRows], [2, 0]);
  });
  await check('a statement prepared once and run often', async (c) => {
    await table(c, 'a INT, b VARCHAR(50)');
    const statement = await c.prepare('INSERT INTO n VALUES (?, ?)');
    for (let i = 0; i < 200; i++) await statement.execute([i, i % 3 ? 'x'.repeat(i % 50) : null]);
    await statement.close();
    assert.equal((await rows(c, 'SELECT COUNT(*) AS c FROM n WHERE b IS NULL'))[0].c, 67);
  });
  await check('two hundred prepared statements', async (c) => {
    for (let i = 0; i < 200; i++) assert.equal(Number((await rows(c, `SELECT ? + ${i} AS a`, [1]))[0].a), i + 1);
  }, { maxPreparedStatements: 50 });
  await check('a prepared statement that is taken back', async (c) => {
    await c.execute('SELECT ? AS a', [1]);
    c.unprepare('SELECT ? AS a');
    assert.equal(String((await rows(c, 'SELECT ? AS a', [2]))[0].a), '2');
  });
  await check('a mistake in a prepared statement', async (c) => {
    await fails(c.prepare('SELEKT ?'), 'ER_PARSE_ERROR');
    assert.equal((await rows(c, 'SELECT 1 AS a'))[0].a, 1);
  });
  await check('several statements in one', async (c) => {
    await table(c, 'a INT');
    const [answers] = await c.query('INSERT INTO n VALUES (1); SELECT a FROM n; SELECT 2 AS b; UPDATE n SET a = 5');
    assert.equal(answers[0].affectedRows, 1);
    assert.deepEqual([answers[1], answers[2]], [[{ a: 1 }], [{ b: 2 }]]);
    assert.equal(answers[3].affectedRows, 1);
  }, { multipleStatements: true });
  await check('several statements with a mistake in the middle', async (c) => {
    await fails(c.query('SELECT 1; SELECT nothing_here; SELECT 2'), 'ER_BAD_FIELD_ERROR');
    assert.equal((await rows(c, 'SELECT 1 AS a'))[0].a, 1);
  }, { multipleStatements: true });
  await check('several statements where they are not allowed', async (c) => fails(c.query('SELECT 1; SELECT 2'), 'ER_PARSE_ERROR'));
  await check('rows as a stream', async (c) => {
    await table(c, 'a INT');
    await c.query(`INSERT INTO n VALUES ${Array.from({ length: 3000 }, (_, i) => `(${i})`)}`);
    let count = 0;
    for await (const row of c.connection.query('SELECT * FROM n').stream()) count += row.a >= 0 ? 1 : 0;
    assert.equal(count, 3000);
  });
  await check('rows as a stream that rests', async (c) => {
    await table(c, 'a INT, b VARCHAR(200)');
    await c.query(`INSERT INTO n VALUES ${Array.from({ length: 3000 }, (_, i) => `(${i}, '${'x'.repeat(200)}')`)}`);
    let count = 0;
    for await (const row of c.connection.query('SELECT * FROM n').stream({ highWaterMark: 5 })) {
      if (count % 500 === 0) await new Promise((r) => setTimeout(r, 20));
      count += row.a >= 0 ? 1 : 0;
    }
    assert.equal(count, 3000);
  });
  await check('20 statements sent without waiting', async (c) => {
    const found = await Promise.all(Array.from({ length: 20 }, (_, i) => rows(c, `SELECT ${i} AS a`)));
    assert.deepEqual(found.map((r) => r[0].a), Array.from({ length: 20 }, (_, i) => i));
  });
  await check('commit and rollback', async (c) => {
    await table(c, 'a INT');
    await c.beginTransaction(); await c.query('INSERT INTO n VALUES (1)'); await c.rollback();
    await c.beginTransaction(); await c.query('INSERT INTO n VALUES (2)'); await c.commit();
    assert.deepEqual(await rows(c, 'SELECT a FROM n'), [{ a: 2 }]);
  });
  await check('a lock that is waited for in vain', async (c) => {
    await table(c, 'a INT PRIMARY KEY');
    await c.query('INSERT INTO n VALUES (1)');
    await c.query('SET innodb_lock_wait_timeout = 1');
    const other = await mysql.createConnection({ ...base, ...setting });
    try {
      await other.query('BEGIN'); await other.query('UPDATE n SET a = 2');
      await c.query('BEGIN');
      await fails(c.query('UPDATE n SET a = 3'), 'ER_LOCK_WAIT_TIMEOUT');
    } finally { other.destroy(); }
  });
  await check('ping', async (c) => { await c.ping(); });
  await check('another user, the same one', async (c) => {
    await c.query('SET @a = 1');
    await c.changeUser({ user, password, database: 'suite2' });
    assert.deepEqual(await rows(c, 'SELECT DATABASE() AS d, @a AS a'), [{ d: 'suite2', a: null }]);
  });
  await check('another user with a wrong password', async (c) => { await fails(c.changeUser({ user, password: 'wrong' }), 'ER_ACCESS_DENIED_ERROR'); });
  await check('the session made new', async (c) => {
    await c.query('SET @a = 1'); await c.reset();
    assert.deepEqual(await rows(c, 'SELECT @a AS a'), [{ a: null }]);
  });
  await check('a prepared statement after the session is made new', async (c) => {
    await c.execute('SELECT ? AS a', ['x']); await c.reset();
    assert.equal((await rows(c, 'SELECT ? AS a', ['y']))[0].a, 'y');
  });
  await check('another database', async (c) => {
    await c.query('USE suite2');
    assert.equal((await rows(c, 'SELECT DATABASE() AS d'))[0].d, 'suite2');
  });
  await check('a duplicate key', async (c) => {
    await table(c, 'a INT PRIMARY KEY');
    await c.query('INSERT INTO n VALUES (1)');
    await fails(c.query('INSERT INTO n VALUES (1)'), 'ER_DUP_ENTRY');
  });
  await check('a table that is missing', async (c) => fails(c.query('SELECT * FROM nothing_here'), 'ER_NO_SUCH_TABLE'));
  await check('a message of an error is the server\'s', async (c) => {
    await assert.rejects(c.query('SELEKT 1'), (e) => e.errno === 1064 && e.sqlState === '42000' && !/tidemill/.test(e.message));
  });
  await check('warnings are counted', async (c) => {
    await table(c, 'a TINYINT');
    const [answer] = await c.query("INSERT IGNORE INTO n VALUES (1000)");
    assert.equal(answer.warningStatus, 1);
    assert.equal((await rows(c, 'SHOW WARNINGS')).length, 1);
  });
  await check('load data local from a stream', async (c) => {
    await table(c, 'a INT, b VARCHAR(20)');
    const lines = Array.from({ length: 20000 }, (_, i) => Buffer.from(`${i}\trow ${i}\n`));
    const [answer] = await c.query({ sql: "LOAD DATA LOCAL INFILE 'x' INTO TABLE n", infileStreamFactory: () => Readable.from(lines) });
    assert.equal(answer.affectedRows, 20000);
  });
  await check('load data local of nothing', async (c) => {
    await table(c, 'a INT');
    const [answer] = await c.query({ sql: "LOAD DATA LOCAL INFILE 'x' INTO TABLE n", infileStreamFactory: () => Readable.from([]) });
    assert.equal(answer.affectedRows, 0);
    assert.equal((await rows(c, 'SELECT 1 AS a'))[0].a, 1);
  });
  await check('load data local where the client says no', async (c) => {
    await table(c, 'a INT');
    await assert.rejects(c.query("LOAD DATA LOCAL INFILE 'x' INTO TABLE n"));
  });
  await check('a text of 3 MB there and back', async (c) => {
    const text = 'x'.repeat(3 << 20);
    assert.equal((await rows(c, 'SELECT ? AS a', [text]))[0].a, text);
    assert.equal((await c.query('SELECT ? AS a', [text]))[0][0].a, text);
  });
  if (server !== 'mariadb') await check('a text of 17 MB, more than one packet', async (c) => {
    const text = 'x'.repeat(17 << 20);
    assert.equal((await c.query('SELECT LENGTH(?) AS a', [text]))[0][0].a, 17 << 20);
  });
  await check('a thousand columns', async (c) => {
    const [row] = await rows(c, `SELECT ${Array.from({ length: 1000 }, (_, i) => `${i} AS c${i}`)}`);
    assert.equal(row.c999, 999);
  });
  await check('an empty result has its columns', async (c) => assert.deepEqual((await c.query('SELECT 1 AS a, 2 AS b FROM DUAL WHERE 1 = 0'))[1].map((f) => f.name), ['a', 'b']));
  await check('what columns are of', async (c) => {
    await table(c, 'id INT UNSIGNED PRIMARY KEY, b VARCHAR(7) NOT NULL');
    const [, fields] = await c.query('SELECT id, b AS bb FROM n AS m');
    assert.deepEqual([fields[1].name, fields[1].orgName, fields[1].table, fields[1].orgTable], ['bb', 'b', 'm', 'n']);
  });
  if (server !== 'tidb') await check('a procedure with two results', async (c) => {
    await c.query('DROP PROCEDURE IF EXISTS np'); await c.query('CREATE PROCEDURE np(a INT) BEGIN SELECT a; SELECT a + 1 AS b; END');
    const [answers] = await c.query('CALL np(4)');
    assert.deepEqual([answers[0], answers[1]], [[{ a: 4 }], [{ b: 5 }]]);
    const [prepared] = await c.execute('CALL np(?)', [6]);
    assert.deepEqual([prepared[0], prepared[1]], [[{ a: 6 }], [{ b: 7 }]]);
  });
  await check('a statement that another session kills', async (c) => {
    const other = await mysql.createConnection({ ...base, ...setting });
    const running = c.query('SELECT SLEEP(20) AS s').then(([r]) => r[0].s, (e) => e.code);
    await new Promise((r) => setTimeout(r, 500));
    await other.query(`KILL QUERY ${c.threadId}`);
    assert.ok([1, 'ER_QUERY_INTERRUPTED'].includes(await Promise.race([running, late(15000)])));
    assert.equal((await rows(c, 'SELECT 1 AS a'))[0].a, 1);
    other.destroy();
  });
  await check('a session that another one kills', async (c) => {
    const other = await mysql.createConnection({ ...base, ...setting });
    const ended = new Promise((r) => { c.connection.once('error', r); c.connection.once('end', r); c.connection.stream.once('close', r); });
    await other.query(`KILL ${c.threadId}`);
    await Promise.race([ended, late(15000)]);
    other.destroy();
  });
  await check('the number of the session', async (c) => assert.equal(Number((await rows(c, 'SELECT CONNECTION_ID() AS i'))[0].i), c.threadId));
  await check('a pool of five for forty', async () => {
    const pool = mysql.createPool({ ...base, ...setting, connectionLimit: 5 });
    const found = await Promise.all(Array.from({ length: 40 }, (_, i) => pool.execute('SELECT ? AS a', [String(i)])));
    assert.deepEqual(found.map(([r]) => r[0].a), Array.from({ length: 40 }, (_, i) => String(i)));
    await pool.end();
  });
  await check('an orderly end', async (c) => { await c.end(); });
  await check('a wrong password', async () => fails(mysql.createConnection({ ...base, ...setting, password: 'wrong' }), 'ER_ACCESS_DENIED_ERROR'));
  await check('a user that is missing', async () => fails(mysql.createConnection({ ...base, ...setting, user: 'nobody' }), 'ER_ACCESS_DENIED_ERROR'));
  await check('a database that is missing', async () => fails(mysql.createConnection({ ...base, ...setting, database: 'nothing' }), 'ER_BAD_DB_ERROR'));
  await check('the version is the server\'s', async (c) => {
    const told = (await rows(c, 'SELECT VERSION() AS v'))[0].v;
    assert.ok(c.connection._handshakePacket.serverVersion.includes(told));
  });
  await check('no database at first', async (c) => assert.equal((await rows(c, 'SELECT DATABASE() AS d'))[0].d, null), { database: undefined });
  await check('found rows by a flag', async (c) => {
    await table(c, 'a INT'); await c.query('INSERT INTO n VALUES (1)');
    assert.equal((await c.query('UPDATE n SET a = 1'))[0].affectedRows, 0);
  }, { flags: ['-FOUND_ROWS'] });
  await check('attributes of the connection', async (c) => assert.equal((await rows(c, 'SELECT 1 AS a'))[0].a, 1), { connectAttributes: { program_name: 'suite' } });
  await check('latin1', async (c) => assert.equal((await rows(c, "SELECT '\u00e9' AS a"))[0].a, '\u00e9'), { charset: 'LATIN1_SWEDISH_CI' });
}

for (const [name, more] of Object.entries(settings)) {
  [prefix, setting] = [name, more];
  await all();
}

process.exit(0);

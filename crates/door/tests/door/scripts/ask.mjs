// Asks by mysql2, in text and prepared, and prints what comes.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, port, path] = process.argv.slice(2);
const mysql = createRequire(`${folder}/`)("mysql2/promise");
const connection = await mysql.createConnection({
  host: "127.0.0.1", port: Number(port), user: "root", database: "ods", charset: "utf8mb4", dateStrings: true,
  supportBigNumbers: true, bigNumberStrings: true,
});
const shown = (value) => (Buffer.isBuffer(value) ? value.toString("hex") : value);
async function ask(way, sql, values) {
  console.log(way, sql);
  try {
    const [rows, fields] = await connection[way](sql, values);
    if (!fields) return;
    console.log(JSON.stringify(fields.map((field) => [field.name, field.columnType, field.decimals])));
    for (const row of rows) console.log(JSON.stringify(Object.values(row).map(shown)));
  } catch (error) {
    console.log("error", error.errno, error.sqlState);
  }
}
for (const sql of readFileSync(path, "utf8").split("\n").filter(Boolean)) {
  await ask("query", sql);
  await ask("execute", sql);
}
await ask("execute", "SELECT id, customer, price FROM orders WHERE customer = ? AND quantity >= ? ORDER BY id", ["Ann", 1]);
await ask("execute", "SELECT id FROM orders WHERE day > ? ORDER BY id LIMIT ?", ["2025-12-31", "1"]);
await ask("execute", "SELECT id FROM orders WHERE photo = ?", [Buffer.from("00ff", "hex")]);
await ask("execute", "SELECT id FROM orders WHERE customer <=> ? OR note = ?", [null, "it's"]);
await connection.ping();
await connection.end();

// Asks a node by Cube's own client, and prints what it made of the answers.
import cubejs from '@cubejs-client/core';

const [apiUrl, token] = process.argv.slice(2);
const cube = cubejs(token, { apiUrl });
const query = {
  measures: ['sales.revenue', 'sales.sales'],
  dimensions: ['sales.dept'],
  timeDimensions: [{ dimension: 'sales.day', granularity: 'month', dateRange: ['2026-01-01', '2026-03-31'] }],
  order: { 'sales.day': 'asc', 'sales.revenue': 'desc' },
};
const meta = await cube.meta();
const loaded = await cube.load(query);
const total = await cube.load({ measures: ['sales.revenue'] });
// Longer than a URL may be, so that the client sends a body.
const long = await cube.load({
  measures: ['sales.revenue'],
  filters: [{ member: 'sales.dept', operator: 'equals', values: Array.from({ length: 90 }, (_, n) => `a department of a long name, ${n}`).concat('north') }],
});
let refused = null;
try {
  await cube.load({ measures: ['sales.nothing'] });
} catch (error) {
  refused = error.message ?? String(error);
}
console.log(JSON.stringify({
  cubes: meta.cubes.map((it) => ({ name: it.name, measures: it.measures.map((m) => m.name), dimensions: it.dimensions.map((d) => d.name) })),
  title: meta.resolveMember('sales.revenue', 'measures').title,
  raw: loaded.rawData(),
  table: loaded.tablePivot(),
  columns: loaded.tableColumns().map((it) => it.key),
  series: loaded.series({ x: ['sales.day.month'], y: ['sales.dept', 'measures'] }).map((it) => ({ key: it.key, values: it.series.map((s) => s.value) })),
  total: total.totalRow()['sales.revenue'],
  long: long.rawData(),
  refused,
}));

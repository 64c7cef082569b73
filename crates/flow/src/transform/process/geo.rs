//! `geo_point`: two numbers as a point.

use super::typed::shown;
use base::Value;
use base::value::format_double;

pub fn point(lat: &str, lon: &str) -> Result<Value, String> {
    let degrees = |name: &str, text: &str, most: f64| {
        let value = super::typed::double(text.trim()).filter(|value| value.abs() <= most);
        value.ok_or_else(|| format!("{} is no {name}", shown(text)))
    };
    let (lat, lon) = (degrees("latitude", lat, 90.0)?, degrees("longitude", lon, 180.0)?);
    Ok(Value::Json(format!("{{\"lat\": {}, \"lon\": {}}}", format_double(lat), format_double(lon))))
}

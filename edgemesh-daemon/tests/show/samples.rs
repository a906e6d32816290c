//! Endpoints and Rules as the admin API sends them.

/// `/v1/endpoints`
pub(crate) const ENDPOINTS: &str = r#"[
  {"id":"6b1d9c4e-0f6b-5a3c-9f0e-2c1d4e5f6a7b","type":"rest","name":"in","namespace":"default",
   "project_id":"1f0e9d8c-7b6a-5f4e-8d3c-2b1a0f9e8d7c","is_shared":false,"properties":{},
   "created_at":1772366400000,"updated_at":1772366400000,"reason":null,
   "used_by":["default/orders","default/metrics-of-all-the-boilers"]},
  {"id":"e-2","type":"servicebus","name":"app","namespace":"shop","project_id":null,"is_shared":true,
   "properties":{"qps":"100","service_port":"6666"},"created_at":0,"updated_at":0,"reason":null,
   "used_by":[]},
  {"id":"e-3","type":"soap","name":"old","namespace":"shop","project_id":null,"is_shared":false,
   "properties":{},"created_at":0,"updated_at":0,
   "reason":"type: `soap` is not known; known are rest, eventbus, servicebus, service","used_by":[]}]"#;

/// `/v1/rules`
pub(crate) const RULES: &str = r#"[
  {"id":"r-1","name":"orders","namespace":"default","project_id":"p-1","domain_id":"",
   "source":{"id":"e-1","type":"rest","name":"in","namespace":"default","project_id":"p-1",
     "is_shared":false,"properties":{},"created_at":1,"updated_at":2},
   "source_resource":{"path":"/orders/{id}"},
   "target":{"id":"e-2","type":"servicebus","name":"app","namespace":"shop","project_id":null,
     "is_shared":true,"properties":{"service_port":"6666"},"created_at":0,"updated_at":0},
   "target_resource":{"path":"/in/{id}","node_name":"edge-1","timeout":"5s"},
   "in_use":true,"is_deleted":false,"created_at":1772366400000,"updated_at":1772366400000,
   "success_messages":120345,"fail_messages":12,"state":"active","reason":null,"since":null,
   "last_success":1772366400123,"latency_ms":3.25,"errors":[{"at":5,"detail":"no answer"}],
   "notes":["`x` means nothing to a Rule with rest"]},
  {"id":"r-2","name":"metrics-of-all-the-boilers","namespace":"default","project_id":"p-1","domain_id":"d",
   "source":{"id":"e-4","type":"eventbus","name":"mqtt","namespace":"default","project_id":"p-1",
     "is_shared":false,"properties":{},"created_at":1,"updated_at":2},
   "source_resource":{"topic":"plant/+/boiler/#","node_name":"edge-1"},
   "target":null,"target_resource":{"resource":"http://metrics.example:8086/api/v2/write"},
   "in_use":true,"is_deleted":false,"created_at":0,"updated_at":0,
   "success_messages":0,"fail_messages":0,"state":"waiting",
   "reason":"target: there is no Endpoint default/influx yet","since":null,"last_success":null,
   "latency_ms":null,"errors":[],"notes":[]},
  {"id":"r-3","name":"upload","namespace":"shop","project_id":"p-2","domain_id":"",
   "source":null,"source_resource":{},"target":null,"target_resource":{},
   "in_use":false,"is_deleted":false,"created_at":0,"updated_at":0,
   "success_messages":7,"fail_messages":3,"state":"degraded",
   "reason":"127.0.0.1:6666: connection refused","since":1772366400000,"last_success":null,
   "latency_ms":null,"errors":[],"notes":[]}]"#;

// Punctual's API for Node: the services as @grpc/grpc-js makes them from the protos, with calls as promises.

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const KEEP = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };
const SERVICES = ["punctual/v1/job_service.proto", "punctual/v1/execution_service.proto"];

// `roots` are the folders that hold punctual/v1 and google/rpc.
export function openPunctual(address, org, roots) {
  const definition = protoLoader.loadSync([...SERVICES, "google/rpc/error_details.proto", "google/rpc/status.proto"], {
    ...KEEP,
    includeDirs: roots,
  });
  const { JobService, ExecutionService } = grpc.loadPackageDefinition(definition).punctual.v1;
  const metadata = new grpc.Metadata();
  metadata.set("x-punctual-org", org);
  // A production client uses grpc.credentials.createSsl() and sends `authorization: Bearer ...` instead.
  const credentials = grpc.credentials.createInsecure();
  const jobs = new JobService(address, credentials);
  const executions = new ExecutionService(address, credentials);

  function call(client, method, request, seconds = 10) {
    return new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + seconds * 1000 };
      client[method](request, metadata, options, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  function details(error) {
    const [packed] = error.metadata.get("grpc-status-details-bin");
    const status = definition["google.rpc.Status"].deserialize(packed);
    return status.details.map((any) => {
      const name = any.type_url.split("/").pop();
      return { name, ...definition[name].deserialize(any.value) };
    });
  }

  return {
    job: (method, request) => call(jobs, method, request),
    execution: (method, request) => call(executions, method, request),
    watch: (request) => executions.watchExecutions(request, metadata, { deadline: Date.now() + 30_000 }),
    details,
    close: () => [jobs, executions].forEach((client) => client.close()),
  };
}

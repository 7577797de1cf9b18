from . import workloads as workloads

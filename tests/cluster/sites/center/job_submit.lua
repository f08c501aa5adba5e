-- slurmctld asks this file about each job: the kind of node is needed, and --mem is refused.

function slurm_job_submit(job, partitions, user)
   if job.features == nil then
      slurm.log_user("Job request does not match any supported policy. Please specify the kind " ..
                     "of node: --constraint=cpu or --constraint=gpu")
      return slurm.ERROR
   end
   if job.min_mem_per_node ~= nil or job.min_mem_per_cpu ~= nil then
      slurm.log_user("Please do not use --mem: a job gets whole nodes, with all their memory")
      return slurm.ERROR
   end
   return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, user)
   return slurm.SUCCESS
end

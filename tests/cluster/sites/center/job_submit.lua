-- slurmctld asks this file about each job: the kind of node is needed.

function slurm_job_submit(job, partitions, user)
   if job.features == nil then
      slurm.log_user("Job request does not match any supported policy. Please specify the kind " ..
                     "of node: --constraint=cpu or --constraint=gpu")
      return slurm.ERROR
   end
   return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, user)
   return slurm.SUCCESS
end
